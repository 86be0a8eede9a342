//! A target and the processes that serve it: names, addresses, modes, configuration.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::Generation;
use crate::key::KeyHash;
use crate::limits;

/// Name of one sharded service, e.g. `cart`: an RFC 1123 label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(Arc<str>);

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a target name: 1 to 63 lower-case letters, digits and inner hyphens (RFC 1123 label)"
)]
pub struct BadTargetName(String);

impl TargetName {
    /// Checks that `text` is an RFC 1123 label.
    pub fn new(text: &str) -> Result<Self, BadTargetName> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let ends = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let good = bytes.len() <= limits::TARGET_NAME_BYTES
            && bytes.iter().all(inner)
            && ends(bytes.first())
            && ends(bytes.last());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(BadTargetName(text.chars().take(80).collect()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for TargetName {
    type Err = BadTargetName;

    fn from_str(text: &str) -> Result<Self, BadTargetName> {
        Self::new(text)
    }
}

/// Where a pod is reached: `host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodAddress(Arc<str>);

/// A text that is no address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pod address; one looks like 10.0.0.7:9000 or cart-3.cart:9000")]
pub struct BadPodAddress(String);

impl PodAddress {
    /// Checks that `text` is `host:port` without white space or control characters.
    pub fn new(text: &str) -> Result<Self, BadPodAddress> {
        let well_formed = text.len() <= limits::POD_ADDRESS_BYTES
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b'@')
            && text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(BadPodAddress(text.chars().take(80).collect()))
        }
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for PodAddress {
    type Err = BadPodAddress;

    fn from_str(text: &str) -> Result<Self, BadPodAddress> {
        Self::new(text)
    }
}

/// A Slicelet incarnation: its address and a random id made for one Slicelet object, never reused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Squid {
    /// Where the Slicelet is reached.
    pub address: PodAddress,
    /// 128 random bits of this object.
    pub id: u128,
}

impl fmt::Display for Squid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.address, self.id >> 96)
    }
}

/// The secret that every message of a session carries. Never printed.
#[derive(Clone, Copy)]
pub struct SessionSecret([u8; 16]);

impl SessionSecret {
    /// A secret from 128 random bits.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a message or a record.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for SessionSecret {
    fn eq(&self, other: &Self) -> bool {
        // No early exit: the time taken tells nothing about where two secrets differ.
        self.0
            .iter()
            .zip(other.0)
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
    }
}

impl Eq for SessionSecret {}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

/// What an operator wants of a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Consistency {
    /// At no instant do two Slicelets both pass an ownership check for a key.
    #[default]
    Strong,
    /// No lease check: available without any Assigner; two Slicelets may briefly disagree.
    Eventual,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::Strong => "strong",
            Consistency::Eventual => "eventual",
        })
    }
}

impl std::str::FromStr for Consistency {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "strong" => Ok(Consistency::Strong),
            "eventual" => Ok(Consistency::Eventual),
            _ => Err(UnknownWord {
                found: text.chars().take(64).collect(),
                wanted: "strong or eventual",
            }),
        }
    }
}

/// A word outside a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not known here; wanted {wanted}")]
pub struct UnknownWord {
    found: String,
    wanted: &'static str,
}

/// What a target promises at this generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Mode {
    /// One owner at a time.
    Strong,
    /// No lease check.
    Eventual,
    /// On the way from eventual to strong: promises nothing yet. Every session checks leases from
    /// the view that shows this, and then acknowledges the arming by its generation.
    Arming(Generation),
}

impl Mode {
    /// Whether a Slicelet that knows this mode serves only while its lease runs.
    pub fn checks_leases(self) -> bool {
        !matches!(self, Mode::Eventual)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Strong => f.write_str("strong"),
            Mode::Eventual => f.write_str("eventual"),
            Mode::Arming(generation) => write!(f, "arming since {generation}"),
        }
    }
}

/// What a Slicelet of a strong target does when its lease has run out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum OnLapse {
    /// Refuse requests until the lease is renewed.
    #[default]
    Stop,
    /// Answer with the verdict `Fenced`, not `Owned`: the application goes on at its own risk and
    /// its store's fence decides.
    ServeFenced,
}

/// Why a target is held: no planned change while it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Hold {
    /// The operator's reason.
    pub reason: String,
}

/// Configuration of a target. Changed as a whole or by parts with [`TargetChange`]; each change
/// raises its version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetConfig {
    /// Strong or eventual.
    pub consistency: Consistency,
    /// How keys become slice keys; never changes.
    pub key_hash: KeyHash,
    /// Time to live of sessions registered from now on.
    pub ttl: Duration,
    /// What a Slicelet does when its lease has run out.
    pub on_lapse: OnLapse,
    /// How long the source of a handoff waits for its destination to be ready.
    pub handoff_deadline: Duration,
    /// Most handoffs that the planner keeps open at once.
    pub max_open_handoffs: u32,
    /// Set while planned changes are held.
    pub hold: Option<Hold>,
    /// An operator's note.
    pub description: String,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            consistency: Consistency::Strong,
            key_hash: KeyHash::Xxh3,
            ttl: Duration::from_secs(3),
            on_lapse: OnLapse::Stop,
            handoff_deadline: Duration::from_secs(10),
            max_open_handoffs: 32,
            hold: None,
            description: String::new(),
        }
    }
}

/// A value of a configuration outside its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}; it must be {bound}")]
pub struct BadConfig {
    pub(crate) field: Cow<'static, str>,
    pub(crate) found: String,
    pub(crate) bound: String,
}

impl TargetConfig {
    /// Checks every value against `limits`.
    pub fn check(&self) -> Result<(), BadConfig> {
        let bad = |field: &'static str, found: String, bound: String| {
            Err(BadConfig {
                field: field.into(),
                found,
                bound,
            })
        };
        if !(limits::TTL_MIN..=limits::TTL_MAX).contains(&self.ttl) {
            let bound = format!("{:?} to {:?}", limits::TTL_MIN, limits::TTL_MAX);
            return bad("ttl", format!("{:?}", self.ttl), bound);
        }
        if self.handoff_deadline.is_zero() || self.handoff_deadline > limits::HANDOFF_DEADLINE_MAX {
            let bound = format!("above zero and at most {:?}", limits::HANDOFF_DEADLINE_MAX);
            return bad(
                "handoff_deadline",
                format!("{:?}", self.handoff_deadline),
                bound,
            );
        }
        let most = limits::OPEN_HANDOFFS_PER_TARGET;
        if self.max_open_handoffs == 0 || self.max_open_handoffs as usize > most {
            return bad(
                "max_open_handoffs",
                self.max_open_handoffs.to_string(),
                format!("1 to {most}"),
            );
        }
        let texts = [
            ("description", Some(&self.description)),
            ("hold reason", self.hold.as_ref().map(|h| &h.reason)),
        ];
        for (field, text) in texts {
            if let Some(text) = text.filter(|text| text.len() > limits::TEXT_BYTES) {
                return bad(
                    field,
                    format!("{} bytes long", text.len()),
                    format!("at most {} bytes", limits::TEXT_BYTES),
                );
            }
        }
        Ok(())
    }
}

/// Parts of a [`TargetConfig`] to change; `None` keeps what is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TargetChange {
    /// See [`TargetConfig::consistency`].
    pub consistency: Option<Consistency>,
    /// See [`TargetConfig::ttl`].
    pub ttl: Option<Duration>,
    /// See [`TargetConfig::on_lapse`].
    pub on_lapse: Option<OnLapse>,
    /// See [`TargetConfig::handoff_deadline`].
    pub handoff_deadline: Option<Duration>,
    /// See [`TargetConfig::max_open_handoffs`].
    pub max_open_handoffs: Option<u32>,
    /// `Some(None)` releases a hold.
    pub hold: Option<Option<Hold>>,
    /// See [`TargetConfig::description`].
    pub description: Option<String>,
}

impl TargetChange {
    /// The configuration with the change made.
    pub fn onto(&self, config: &TargetConfig) -> TargetConfig {
        TargetConfig {
            consistency: self.consistency.unwrap_or(config.consistency),
            key_hash: config.key_hash,
            ttl: self.ttl.unwrap_or(config.ttl),
            on_lapse: self.on_lapse.unwrap_or(config.on_lapse),
            handoff_deadline: self.handoff_deadline.unwrap_or(config.handoff_deadline),
            max_open_handoffs: self.max_open_handoffs.unwrap_or(config.max_open_handoffs),
            hold: self.hold.clone().unwrap_or_else(|| config.hold.clone()),
            description: self
                .description
                .clone()
                .unwrap_or_else(|| config.description.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_checked() {
        assert!(TargetName::new("cart").is_ok() && TargetName::new("a-1").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", &"a".repeat(64)] {
            assert!(TargetName::new(bad).is_err(), "{bad}");
        }
        assert!(PodAddress::new("10.0.0.7:9000").is_ok() && PodAddress::new("[::1]:1").is_ok());
        for bad in [
            "",
            "host",
            "host:0",
            "host:99999",
            ":1",
            "ho st:1",
            "http://h:1",
            "u@h:1",
        ] {
            assert!(PodAddress::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(
            format!("{:?}", SessionSecret::from_bytes([7; 16])),
            "SessionSecret(..)"
        );
    }
}
