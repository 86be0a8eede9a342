//! Where values come from, and which of two wins.

use std::collections::BTreeMap;
use std::path::Path;

use super::Config;
use super::keys::{self, Given};
use super::units::clip;

/// Variables that begin with `LEASEHOLD_` and are no keys.
const RESERVED_VARIABLES: &[&str] = &[
    "LEASEHOLD_CONFIG",
    "LEASEHOLD_ENDPOINTS",
    "LEASEHOLD_CACHE",
    #[cfg(leasehold_mutants)]
    "LEASEHOLD_MUTANT",
    #[cfg(leasehold_mutants)]
    "LEASEHOLD_MUTANT_RESULTS",
];

const PREFIX: &str = "LEASEHOLD_";

/// A configuration that cannot be used: which key of which layer, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Values by key, in layers; a later layer wins over an earlier one.
#[derive(Debug, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, (Given, String)>,
}

impl Layers {
    /// Lays the values of a TOML file over what is there.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        self.text(&text, &path.display().to_string())
    }

    /// Lays the values of a TOML text over what is there; `name` is what errors call it.
    pub fn text(&mut self, text: &str, name: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| {
                text[..span.start.min(text.len())].lines().count().max(1)
            });
            ConfigError(format!(
                "{name}, line {line}: {}",
                error.message().replace('\n', "; ")
            ))
        })?;
        let mut found = Vec::new();
        flatten("", &table, &mut found);
        for (path, value) in found {
            let given = given(&value).ok_or_else(|| {
                ConfigError(format!(
                    "{path} in {name} must be a text, a number, true or false, or a list of texts"
                ))
            })?;
            self.put(&path, given, format!("{path} in {name}"))?;
        }
        Ok(())
    }

    /// Lays the variables `LEASEHOLD_*` over what is there: `LEASEHOLD_NODE__ID` is `node.id`.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if RESERVED_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let path = key.to_ascii_lowercase().replace("__", ".");
            self.put(
                &path,
                Given::One(value),
                format!("the environment variable {name}"),
            )?;
        }
        Ok(())
    }

    /// Lays one flag over what is there.
    pub fn flag(
        &mut self,
        flag: &str,
        path: &str,
        value: impl Into<String>,
    ) -> Result<(), ConfigError> {
        self.put(path, Given::One(value.into()), flag.to_owned())
    }

    fn put(&mut self, path: &str, given: Given, origin: String) -> Result<(), ConfigError> {
        let Some(key) = keys::find(path) else {
            let hint = match keys::most_like(path) {
                Some(known) => format!("did you mean {known}?"),
                None => "`leasehold config print-default` lists all keys".to_owned(),
            };
            return Err(ConfigError(format!(
                "unknown key {} ({origin}); {hint}",
                clip(path)
            )));
        };
        self.values.insert(key.path, (given, origin));
        Ok(())
    }

    /// The configuration that the layers make over the defaults, each value checked by itself and
    /// all of them together.
    pub fn build(&self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for (path, (given, origin)) in &self.values {
            let Some(key) = keys::find(path) else {
                continue;
            };
            (key.set)(&mut config, given).map_err(|why| ConfigError(format!("{origin}: {why}")))?;
        }
        config.check()?;
        Ok(config)
    }
}

fn flatten(prefix: &str, table: &toml::Table, found: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, found),
            value => found.push((path, value.clone())),
        }
    }
}

fn word(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
            Some(value.to_string())
        }
        _ => None,
    }
}

fn given(value: &toml::Value) -> Option<Given> {
    match value {
        toml::Value::Array(items) => items
            .iter()
            .map(word)
            .collect::<Option<_>>()
            .map(Given::Many),
        value => word(value).map(Given::One),
    }
}
