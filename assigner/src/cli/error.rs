//! How a command fails: one line with the cause and the next step, and an exit code.

use std::process::ExitCode;

use leasehold_proto::wire::WireError;
use leasehold_proto::wire::status::Refusal;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer is no, or a local file failed.
    Negative,
    /// The command or a value in it is wrong.
    Usage,
    /// No Assigner answers, none leads, or no answer in time.
    Unavailable,
    /// Not allowed.
    Denied,
    /// The present state forbids it.
    Conflict,
}

impl Kind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Negative => "negative",
            Kind::Usage => "usage",
            Kind::Unavailable => "unavailable",
            Kind::Denied => "denied",
            Kind::Conflict => "conflict",
        }
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> ExitCode {
        ExitCode::from(match kind {
            Kind::Negative => 1,
            Kind::Usage => 2,
            Kind::Unavailable => 3,
            Kind::Denied => 4,
            Kind::Conflict => 5,
        })
    }
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    kind: Kind,
    text: String,
    passes: bool,
}

impl Failure {
    fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            passes: false,
        }
    }

    /// The answer is no.
    pub fn negative(text: impl Into<String>) -> Self {
        Self::new(Kind::Negative, text)
    }

    /// The command is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// Nobody answers.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, text)
    }

    /// The present state forbids it.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, text)
    }

    /// The same, with more to say.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }

    /// What the exit code says.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was asked may be done a little later, with nothing else changed.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// A refusal of an Assigner. `subject` is what was asked about, as the user named it.
    pub fn refused(refusal: &Refusal, subject: Option<&str>) -> Self {
        let (kind, next) = match refusal {
            Refusal::UnknownTarget => {
                let name =
                    subject.map_or("such target".to_owned(), |name| format!("target {name}"));
                return Self::negative(format!(
                    "there is no {name}; `leasehold target list` shows all"
                ));
            }
            Refusal::UnknownSession => {
                let target = subject.unwrap_or("TARGET");
                return Self::negative(format!(
                    "there is no such live session; `leasehold session list {target}` shows all"
                ));
            }
            Refusal::NotLeader { .. } | Refusal::Halted(_) => {
                (Kind::Unavailable, "`leasehold status` shows who leads")
            }
            Refusal::Overload => (Kind::Unavailable, ""),
            Refusal::BadSecret => (Kind::Denied, ""),
            Refusal::TooLarge(_) | Refusal::Invalid(_) => (Kind::Usage, ""),
            Refusal::Conflict(_) | Refusal::Rejected(_) | Refusal::Superseded => {
                (Kind::Conflict, "")
            }
            Refusal::Indeterminate => (
                Kind::Unavailable,
                "look at the present state before you repeat it",
            ),
            Refusal::Internal(_) => (Kind::Unavailable, "the Assigner's log tells more"),
        };
        let text = if next.is_empty() {
            refusal.to_string()
        } else {
            format!("{refusal}; {next}")
        };
        Self {
            passes: matches!(refusal, Refusal::Conflict(_)),
            ..Self::new(kind, text)
        }
    }

    /// An answer that is none: of another program, or of another version.
    pub fn unreadable(error: &WireError) -> Self {
        Self::unavailable(format!(
            "the Assigner's answer cannot be read ({error}); is it of another version? See `leasehold version` and \
             `leasehold status`"
        ))
    }

    /// A status that no Assigner has written: of a transport, a proxy or another program.
    pub fn foreign(status: &tonic::Status, endpoint: &str) -> Self {
        use tonic::Code;
        let said = match status.message() {
            "" => status.code().description().to_owned(),
            message => message
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect(),
        };
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::new(
                Kind::Denied,
                format!("{endpoint} does not allow it ({said})"),
            ),
            Code::Unimplemented => Self::unavailable(format!(
                "{endpoint} does not know this request ({said}); it is another program, or an Assigner of another version"
            )),
            _ => Self::unavailable(format!("{endpoint} failed ({said})")),
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}
