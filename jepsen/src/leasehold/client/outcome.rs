//! From what came back, or did not, to one of three outcomes. When in doubt it is unknown.

use std::time::Duration;

use leasehold_client::{Error, ErrorKind};
use leasehold_proto::wire::status::Refusal;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::rpc::{DoReply, Outcome, Version};
use crate::system::Completion;

/// What a call through a Clerk came to.
pub(super) fn of_error(error: &Error) -> Completion {
    let text = error.to_string();
    match error.kind() {
        // The Clerk promises that nothing was done: that it keeps the promise is being tested.
        ErrorKind::NotOwner | ErrorKind::Unavailable | ErrorKind::Expired | ErrorKind::Invalid => {
            Completion::Fail(text)
        }
        _ => Completion::Unknown(text),
    }
}

/// What a pod's answer says.
pub(super) fn of_reply(reply: &DoReply) -> Completion {
    match reply.outcome() {
        Outcome::Ok => {
            let value = serde_json::from_str(&reply.value).unwrap_or(Value::Null);
            Completion::Ok {
                value: versioned(value, reply.version),
                node: Some(reply.pod.clone()),
                epoch: Some(reply.token),
            }
        }
        Outcome::Failed => Completion::Fail(reply.why.clone()),
        Outcome::Unknown | Outcome::Unspecified => Completion::Unknown(reply.why.clone()),
    }
}

/// A value with its version, as the checkers want it.
pub(super) fn versioned(value: Value, version: Option<Version>) -> Value {
    let version = version.unwrap_or_default();
    json!({ "value": value, "version": [version.token, version.seq] })
}

/// A request that was made directly, and not answered.
pub(super) fn of_status(status: &Status) -> Completion {
    let text = format!("{} ({:?})", status.message(), status.code());
    let nothing_was_done = match Refusal::from_status(status) {
        Some(Refusal::Indeterminate | Refusal::Internal(_)) => false,
        Some(_) => true,
        None => never_sent(status) || matches!(status.code(), Code::InvalidArgument),
    };
    if nothing_was_done {
        Completion::Fail(text)
    } else {
        Completion::Unknown(text)
    }
}

/// Whether there was no connection to send it over.
pub(super) fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the end of its time means for a request.
pub(super) fn out_of_time(sent: bool, deadline: Duration) -> Completion {
    if sent {
        Completion::Unknown(format!("no answer within {deadline:?}"))
    } else {
        Completion::Fail(format!("nobody took it within {deadline:?}"))
    }
}

/// An operation that this client cannot make sense of.
pub(super) fn nonsense(what: &str) -> Completion {
    Completion::Fail(format!("the workload asks for nonsense: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_or_never_sent_has_failed() {
        for (status, fails) in [
            (Status::from(&Refusal::NotLeader { leader: None }), true),
            (Status::from(&Refusal::Conflict("c".into())), true),
            (Status::from(&Refusal::Indeterminate), false),
            (Status::from(&Refusal::Internal("i".into())), false),
            (Status::unavailable("the connection broke"), false),
            (Status::cancelled("timeout"), false),
            (Status::deadline_exceeded("late"), false),
            (Status::unknown("?"), false),
        ] {
            let completion = of_status(&status);
            assert_eq!(matches!(completion, Completion::Fail(_)), fails, "{status}");
        }
    }

    #[test]
    fn an_answer_without_an_outcome_is_unknown() {
        let reply = DoReply::default();
        assert!(matches!(of_reply(&reply), Completion::Unknown(_)));
    }
}
