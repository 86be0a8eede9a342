//! What operations do to a value: a pure function, whatever the pod that carries it out.

use leasehold_proto::mutant;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rpc::do_request::What;
use crate::rpc::{Stored, Version};

/// Elements of a list, or idempotency tokens of a counter; workloads leave a key long before.
const MOST: usize = 4_096;

/// What an operation comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// It changes nothing; this is the answer.
    Answer(Value),
    /// This is to be written, and then this is the answer.
    Write(Value, Value),
    /// It is not done.
    Refuse(String),
}

/// A counter as it is stored. Its ids are those applied, once for each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    value: i64,
    applied: Vec<String>,
}

/// A lock as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lock {
    holder: String,
    ttl_ms: u32,
}

/// How long the lock that is stored lasts, if one is.
pub(super) fn lock_ttl(stored: &Stored) -> Option<std::time::Duration> {
    let lock: Lock = serde_json::from_str(&stored.value).ok()?;
    Some(std::time::Duration::from_millis(lock.ttl_ms.into()))
}

/// Decides about `stored`. `lock_lapsed`: whether a lock that is held may be given to another.
///
/// # Errors
/// What is stored or asked cannot be read; the request can never succeed.
pub(super) fn decide(what: &What, stored: &Stored, lock_lapsed: bool) -> Result<Decision, String> {
    let value = parse(&stored.value)?;
    Ok(match what {
        What::Read(_) => Decision::Answer(value),
        What::Write(write) => Decision::Write(parse(&write.value)?, parse(&write.value)?),
        What::Cas(cas) => {
            let (from, to) = (parse(&cas.from)?, parse(&cas.to)?);
            if value == from {
                let answer = Value::from(vec![from, to.clone()]);
                Decision::Write(to, answer)
            } else {
                Decision::Refuse(format!("the value is {value}"))
            }
        }
        What::Append(append) => {
            let mut list: Vec<Value> = or_default(value)?;
            if list.len() >= MOST {
                return Err("the list is full".into());
            }
            let before = Value::from(list.clone());
            list.push(append.element.into());
            Decision::Write(list.into(), before)
        }
        What::Add(add) => {
            let mut counter: Counter = or_default(value)?;
            let id = &add.idempotency_token;
            if !id.is_empty() && counter.applied.contains(id) && !mutant!("idempotency_ignored") {
                return Ok(Decision::Answer(counter.value.into()));
            }
            if counter.applied.len() >= MOST {
                return Err("the counter is full".into());
            }
            counter.value = counter.value.saturating_add(add.amount);
            counter.applied.push(id.clone());
            let answer = counter.value.into();
            Decision::Write(to_value(&counter)?, answer)
        }
        What::Acquire(acquire) => {
            let held: Option<Lock> = or_default(value)?;
            match held.filter(|_| !lock_lapsed) {
                Some(lock) => Decision::Refuse(format!("held by {}", lock.holder)),
                None => {
                    let lock = Lock {
                        holder: acquire.holder.clone(),
                        ttl_ms: acquire.ttl_ms,
                    };
                    Decision::Write(to_value(&lock)?, Value::Null)
                }
            }
        }
        What::Release(release) => {
            if release.token == stored.version && stored.value != "null" {
                Decision::Write(Value::Null, Value::Null)
            } else {
                Decision::Refuse(format!("the lock is at {}", show(stored.version)))
            }
        }
    })
}

fn show(version: Option<Version>) -> String {
    let version = version.unwrap_or_default();
    format!("{}.{}", version.token, version.seq)
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{text:?} is not JSON: {error}"))
}

fn to_value(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// `null` stands for what was never written.
fn or_default<T: Default + serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    if value.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(value).map_err(|error| format!("the key holds something else: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Acquire, Add, Append, Cas, Release};

    fn stored(value: &str) -> Stored {
        Stored {
            value: value.into(),
            version: Some(Version { token: 5, seq: 2 }),
        }
    }

    #[test]
    fn a_cas_changes_only_the_value_it_expects() {
        let cas = What::Cas(Cas {
            from: "1".into(),
            to: "2".into(),
        });
        let good = decide(&cas, &stored("1"), false).unwrap();
        assert!(matches!(good, Decision::Write(to, _) if to == 2));
        let bad = decide(&cas, &stored("3"), false).unwrap();
        assert!(matches!(bad, Decision::Refuse(_)));
    }

    #[test]
    fn an_addition_is_repeated_only_without_a_token() {
        let add = |token: &str| {
            What::Add(Add {
                amount: 3,
                idempotency_token: token.into(),
            })
        };
        let seen = r#"{"value":4,"applied":["a"]}"#;
        let again = decide(&add("a"), &stored(seen), false).unwrap();
        assert_eq!(again, Decision::Answer(4.into()));
        for fresh in ["b", ""] {
            let added = decide(&add(fresh), &stored(seen), false).unwrap();
            assert!(matches!(added, Decision::Write(_, sum) if sum == 7));
        }
    }

    #[test]
    fn a_list_begins_empty_and_answers_with_what_was_before() {
        let append = What::Append(Append { element: 9 });
        let first = decide(&append, &stored("null"), false).unwrap();
        assert_eq!(
            first,
            Decision::Write(Value::from(vec![9]), Value::from(Vec::<i64>::new()))
        );
    }

    #[test]
    fn a_lock_is_given_once_and_taken_back_only_for_its_token() {
        let acquire = What::Acquire(Acquire {
            holder: "a".into(),
            ttl_ms: 1,
        });
        let held = r#"{"holder":"b","ttl_ms":1}"#;
        let decision = |what: &What, value: &str, lapsed| {
            decide(what, &stored(value), lapsed).expect("well-formed")
        };
        assert!(matches!(
            decision(&acquire, "null", false),
            Decision::Write(..)
        ));
        assert!(matches!(
            decision(&acquire, held, false),
            Decision::Refuse(_)
        ));
        assert!(matches!(
            decision(&acquire, held, true),
            Decision::Write(..)
        ));
        let release = |seq| {
            What::Release(Release {
                token: Some(Version { token: 5, seq }),
            })
        };
        assert!(matches!(
            decision(&release(2), held, false),
            Decision::Write(..)
        ));
        assert!(matches!(
            decision(&release(1), held, false),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn nonsense_is_refused() {
        let add = What::Add(Add::default());
        assert!(decide(&add, &stored("[1]"), false).is_err());
        assert!(decide(&add, &stored("{"), false).is_err());
    }
}
