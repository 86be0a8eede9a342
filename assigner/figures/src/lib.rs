//! The one form in which every demo, bench and test run of this project writes its figures.
//!
//! `{"run": …, "machine": …, "figures": [{"name", "value", "unit", "goal", "met"}], "absent":
//! [{"name", "reason"}]}`. Names are snake case with the unit in them and are never renamed. A
//! figure that could not be measured is absent, with the reason; never zero.

use std::path::Path;

use serde::Serialize;

/// One run's figures, as `--json FILE` writes them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub run: Run,
    /// On what.
    pub machine: Machine,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was not, and why.
    pub absent: Vec<Absent>,
}

/// What was run: enough to run it again.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Short name, e.g. `demo ownership`.
    pub name: String,
    /// The command line.
    pub command: String,
    /// Package version.
    pub version: &'static str,
    /// Compiler profile of the binary that ran.
    pub build: &'static str,
    /// Seconds since 1970 at the end of the run.
    pub finished_unix_s: u64,
}

/// The machine: what a reader needs to judge the figures.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Median time of an append of 4 KiB with fdatasync in the run's directory, in microseconds.
    pub fdatasync_us_p50: Option<f64>,
}

/// One measured figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Snake case, with the unit.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What is wanted, e.g. `<= 10`; `None` for a figure that is only reported.
    pub goal: Option<String>,
    /// Whether the goal was reached.
    pub met: Option<bool>,
}

/// A figure that could not be measured.
#[derive(Debug, Serialize)]
pub struct Absent {
    /// Its name.
    pub name: &'static str,
    /// Why it is absent.
    pub reason: String,
}

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Only reported.
    None,
}

impl Goal {
    fn judge(self, value: f64) -> (Option<String>, Option<bool>) {
        match self {
            Goal::AtMost(bound) => (Some(format!("<= {bound}")), Some(value <= bound)),
            Goal::AtLeast(bound) => (Some(format!(">= {bound}")), Some(value >= bound)),
            Goal::None => (None, None),
        }
    }
}

impl Report {
    /// An empty report; `dir` is where the run keeps its data, for the disk figure.
    pub fn new(name: &str, dir: &Path) -> Self {
        let finished = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut command: Vec<String> = std::env::args().collect();
        if let Some(program) = command.first_mut() {
            let file = Path::new(program.as_str()).file_name();
            *program = file.unwrap_or_default().to_string_lossy().into_owned();
        }
        Self {
            run: Run {
                name: name.to_owned(),
                command: command.join(" "),
                version: env!("CARGO_PKG_VERSION"),
                build: if cfg!(debug_assertions) {
                    "debug"
                } else {
                    "release"
                },
                finished_unix_s: finished
                    .map(|elapsed| elapsed.as_secs())
                    .unwrap_or_default(),
            },
            machine: Machine::here(dir),
            figures: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &'static str, value: f64, unit: &'static str, goal: Goal) {
        let (goal, met) = goal.judge(value);
        self.figures.push(Figure {
            name,
            value: round(value),
            unit,
            goal,
            met,
        });
    }

    /// Adds a figure if it was measured, else says why not.
    pub fn maybe(
        &mut self,
        name: &'static str,
        value: Option<f64>,
        unit: &'static str,
        goal: Goal,
        reason: &str,
    ) {
        match value {
            Some(value) => self.figure(name, value, unit, goal),
            None => self.absent(name, reason),
        }
    }

    /// Says why a figure is missing.
    pub fn absent(&mut self, name: &'static str, reason: &str) {
        self.absent.push(Absent {
            name,
            reason: reason.to_owned(),
        });
    }

    /// Says why a figure is missing, unless it was measured or is said to be missing already.
    pub fn absent_unless_there(&mut self, name: &'static str, reason: &str) {
        let there = self.figures.iter().any(|figure| figure.name == name)
            || self.absent.iter().any(|absent| absent.name == name);
        if !there {
            self.absent(name, reason);
        }
    }

    /// Whether every goal of a measured figure was reached.
    pub fn all_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.met != Some(false))
    }

    /// Writes the report as JSON: whole or not at all.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        text.push('\n');
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, path)
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["figure", "value", "unit", "goal", ""]);
        for figure in &self.figures {
            let mark = match figure.met {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            };
            let goal = figure.goal.clone().unwrap_or_default();
            table.add_row([figure.name, &plain(figure.value), figure.unit, &goal, mark]);
        }
        for absent in &self.absent {
            table.add_row([absent.name, "absent", "", "", &absent.reason]);
        }
        table.to_string()
    }
}

/// Three digits behind the point are more than any of these measurements carries.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn plain(value: f64) -> String {
    let text = format!("{:.3}", value);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Machine {
    fn here(dir: &Path) -> Self {
        let field = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism()
                .map(usize::from)
                .unwrap_or(0),
            memory_mib: memory_kib.unwrap_or_default() / 1024,
            kernel: kernel.trim().to_owned(),
            fdatasync_us_p50: fdatasync_us_p50(dir).ok(),
        }
    }
}

fn fdatasync_us_p50(dir: &Path) -> std::io::Result<f64> {
    use std::io::Write;
    let path = dir.join("fdatasync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut samples = Vec::with_capacity(100);
    for _ in 0..100 {
        let start = std::time::Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        samples.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    samples.sort_by(f64::total_cmp);
    Ok(round(samples[50]))
}

/// The `q`-quantile (0 to 1) of samples in any order, by nearest rank; `None` of none.
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64) * q).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_was_not_measured_is_absent_and_not_zero() {
        let mut report = Report::new("test", &std::env::temp_dir());
        report.maybe("gap_ms", None, "ms", Goal::AtMost(1.0), "nothing moved");
        report.maybe("rate_per_s", Some(5.0), "1/s", Goal::AtLeast(6.0), "");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["figures"].as_array().unwrap().len(), 1);
        assert_eq!(json["figures"][0]["met"], false);
        assert_eq!(json["absent"][0]["reason"], "nothing moved");
        assert!(!report.all_met());
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), Some(50.0));
        assert_eq!(quantile(&samples, 0.99), Some(99.0));
        assert_eq!(quantile(&samples, 1.0), Some(100.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
