//! Where a time or a value lies in a plot, and where the axes have their ticks.

/// Width of every plot.
pub(crate) const WIDTH: f64 = 1200.0;
/// Where every time axis begins: plots one above the other agree.
pub(crate) const LEFT: f64 = 132.0;
/// Where every time axis ends.
pub(crate) const RIGHT: f64 = WIDTH - 24.0;

/// A span of true time, laid over the width of a plot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeAxis {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end, later than the beginning.
    pub to_ns: u64,
}

impl TimeAxis {
    /// An axis over this span, at least one microsecond long.
    pub fn new(from_ns: u64, to_ns: u64) -> Self {
        let from_ns = from_ns.min(u64::MAX / 2);
        let to_ns = to_ns.max(from_ns + 1_000);
        Self { from_ns, to_ns }
    }

    /// How long it is.
    pub fn span_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }

    /// Where `ns` is; a time outside is at the nearer end.
    pub fn x(&self, ns: u64) -> f64 {
        let inside = ns.clamp(self.from_ns, self.to_ns) - self.from_ns;
        LEFT + (RIGHT - LEFT) * inside as f64 / self.span_ns() as f64
    }

    /// Whether any of `from_ns..=to_ns` is on it.
    pub fn shows(&self, from_ns: u64, to_ns: u64) -> bool {
        from_ns <= self.to_ns && to_ns >= self.from_ns
    }

    /// Times of ticks, each with its text in seconds.
    pub fn ticks(&self) -> Vec<(u64, String)> {
        let step = nice_step(self.span_ns() as f64 / 10.0).max(1.0);
        let first = (self.from_ns as f64 / step).ceil();
        (0..=20)
            .map(|i| (first + f64::from(i)) * step)
            .take_while(|at| *at <= self.to_ns as f64)
            .map(|at| (at as u64, crate::text::tick(at / 1e9)))
            .collect()
    }

    /// The width of about a hundred equal buckets of round length.
    pub fn bucket_ns(&self) -> u64 {
        (nice_step(self.span_ns() as f64 / 100.0) as u64).max(1)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `rough`.
pub(crate) fn nice_step(rough: f64) -> f64 {
    if !rough.is_finite() || rough <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let lead = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|lead| lead * power >= rough * 0.999_999);
    lead.unwrap_or(10.0) * power
}

/// A value axis: bottom at the height of the plot, top at 0.
#[derive(Clone, Debug)]
pub(crate) struct ValueAxis {
    low: f64,
    high: f64,
    height: f64,
    logarithmic: bool,
    /// Where lines are drawn across, each with its text.
    pub ticks: Vec<(f64, String)>,
}

impl ValueAxis {
    /// An axis with equal steps over `low..=high`, widened to its ticks; at least one wide.
    pub fn linear(low: f64, high: f64, height: f64, unit: &str) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = nice_step((high - low) / 5.0);
        // A little beyond a tick does not earn another step.
        let (low, high) = (
            (low / step + 0.02).floor() * step,
            (high / step - 0.02).ceil() * step,
        );
        let steps = (((high - low) / step).round() as i32).clamp(1, 20);
        let ticks = (0..=steps)
            .map(|i| low + f64::from(i) * step)
            .map(|at| (at, format!("{}{unit}", crate::text::tick(at))))
            .collect();
        Self {
            low,
            high,
            height,
            logarithmic: false,
            ticks,
        }
    }

    /// An axis of lengths of time by powers of ten.
    pub fn log_ns(least: u64, most: u64, height: f64) -> Self {
        let low = (least.max(1) as f64).log10().floor();
        let high = (most.max(1) as f64).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32)
            .map(|power| 10f64.powi(power))
            .map(|at| (at, power_of_ten_ns(at)))
            .collect();
        Self {
            low,
            high,
            height,
            logarithmic: true,
            ticks,
        }
    }

    /// Where `value` is; one outside is at the nearer end.
    pub fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.max(1.0).log10()
        } else {
            value
        };
        let share = (value - self.low) / (self.high - self.low);
        self.height * (1.0 - share.clamp(0.0, 1.0))
    }
}

fn power_of_ten_ns(ns: f64) -> String {
    let (scale, unit) = match ns {
        n if n < 1e3 => (1.0, "ns"),
        n if n < 1e6 => (1e3, "µs"),
        n if n < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", crate::text::tick(ns / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_not_too_small() {
        for (rough, step) in [(0.11, 0.2), (0.2, 0.2), (3.0, 5.0), (7.0, 10.0), (0.0, 1.0)] {
            assert!((nice_step(rough) - step).abs() < 1e-9, "{rough}");
        }
    }

    #[test]
    fn time_fills_the_width() {
        let axis = TimeAxis::new(1_000, 2_000_001_000);
        assert_eq!(axis.x(1_000), LEFT);
        assert_eq!(axis.x(u64::MAX), RIGHT);
        assert!((5..=11).contains(&axis.ticks().len()));
        assert_eq!(axis.bucket_ns(), 20_000_000);
    }

    #[test]
    fn an_empty_span_has_an_axis() {
        let axis = TimeAxis::new(u64::MAX, 0);
        assert!(axis.x(5).is_finite());
        let values = ValueAxis::linear(0.0, 0.0, 100.0, "");
        assert_eq!(values.y(0.0), 100.0);
        assert!(ValueAxis::log_ns(0, 0, 100.0).y(0.0).is_finite());
    }
}
