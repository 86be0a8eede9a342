//! A configuration as a commented file.

use std::fmt::Write;

use super::Config;
use super::keys::KEYS;

const HEAD: &str = "\
# Configuration of a Leasehold Assigner, for `leasehold serve --config FILE`.
# Flags win over environment variables, those over this file, this file over the defaults.
# The variable of node.id is LEASEHOLD_NODE__ID, and so on. A key that is not listed here
# is an error. Durations have a unit: 3s, 500ms.
";

/// The defaults as a commented file; reading it back gives the defaults.
pub fn print_default() -> String {
    print(&Config::default(), HEAD, true)
}

/// A configuration as a file without comments; reading it back gives the same.
pub fn print_effective(config: &Config) -> String {
    print(config, "", false).trim_start().to_owned()
}

fn print(config: &Config, head: &str, comments: bool) -> String {
    let mut text = head.to_owned();
    let mut table = "";
    for key in KEYS {
        let (inside, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if inside != table {
            table = inside;
            let _ = write!(text, "\n[{table}]\n");
        }
        if comments {
            let lines: Vec<String> = key.doc.lines().map(|line| format!("# {line}\n")).collect();
            let _ = write!(text, "\n{}", lines.concat());
        }
        let _ = match (key.show)(config) {
            Some(value) => writeln!(text, "{name} = {value}"),
            None if comments => writeln!(text, "# {name} = {}", key.example),
            None => Ok(()),
        };
    }
    text
}
