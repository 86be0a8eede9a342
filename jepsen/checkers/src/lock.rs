//! Mutual exclusion.
//!
//! A lock with a lease excludes by token, not by time: "Jepsen: etcd 3.4.3" (2020) shows two
//! clients that both hold the same etcd lock, which no lock service can prevent. What it can do is
//! hand out a larger token to each next holder, so that what is guarded tells the late one off.

use crate::history::{Call, End, History};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "lock";

/// What must not coincide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// Two times between the end of an `acquire` and the beginning of its `release`. Asks of a lock
    /// what no lock with a lease can give in an asynchronous system: a positive control.
    Time,
    /// An `act` under a token, and one before it under a larger token.
    Token,
}

/// Judges `acquire`, `release` and `act`, by key.
///
/// In both cases tokens must be larger from one `acquire` to one that began after it had ended, and
/// no two `acquire`s may get the same. A release belongs to the last `acquire` before it of the
/// same process or, after the process was retired, of the same token. Nothing acquired, or under
/// [`Exclusion::Token`] nothing acted, is unknown.
pub fn check(history: &History, exclusion: Exclusion) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let (mut acquired, mut acted) = (0u64, 0u64);
    for (key, calls) in history.calls_by_key() {
        let acquires: Vec<Call<'_>> = successes(&calls, "acquire");
        let acts: Vec<Call<'_>> = successes(&calls, "act");
        acquired += acquires.len() as u64;
        acted += acts.len() as u64;
        check_tokens(key, &acquires, true, &mut outcome);
        match exclusion {
            Exclusion::Time => check_times(key, &calls, &acquires, &mut outcome),
            Exclusion::Token => check_tokens(key, &acts, false, &mut outcome),
        }
    }
    if acquired == 0 || (exclusion == Exclusion::Token && acted == 0) {
        let what = match acquired {
            0 => "nothing was acquired",
            _ => "nothing was done under the lock",
        };
        outcome.unknown(Finding::new(what));
    }
    outcome.count("acquired", acquired);
    outcome.count("acted", acted);
    outcome
}

fn successes<'a>(calls: &[Call<'a>], f: &str) -> Vec<Call<'a>> {
    let with_f = calls.iter().filter(|call| call.f() == f);
    with_f.filter(|call| call.ok().is_some()).copied().collect()
}

fn token(call: &Call<'_>) -> Option<u64> {
    call.ok().and_then(|ok| ok.epoch)
}

/// Tokens follow time; strictly, if each must have its own.
fn check_tokens(key: &str, calls: &[Call<'_>], is_own: bool, outcome: &mut Outcome) {
    let mut begins: Vec<(Call<'_>, u64)> = Vec::new();
    for call in calls {
        match token(call) {
            Some(token) => begins.push((*call, token)),
            None => outcome.unknown(
                Finding::new(format!("an {} carries no token", call.f()))
                    .ops([call.invoke.index])
                    .key(key),
            ),
        }
    }
    let mut ends = begins.clone();
    begins.sort_by_key(|(call, _)| call.call_ns());
    ends.sort_by_key(|(call, _)| call.return_ns());
    let mut ends = ends.into_iter().peekable();
    let mut largest: Option<(Call<'_>, u64)> = None;
    for (call, token) in &begins {
        while let Some(ended) = ends.next_if(|(ended, _)| ended.precedes(call)) {
            if largest.is_none_or(|(_, largest)| largest < ended.1) {
                largest = Some(ended);
            }
        }
        let Some((earlier, before)) = largest else {
            continue;
        };
        if before > *token || (is_own && before == *token) {
            let what = format!(
                "{} with token {token} began after {} with token {before} had ended",
                call.f(),
                earlier.f(),
            );
            outcome.invalid(pair(what, key, &earlier, call));
        }
    }
    if is_own {
        begins.sort_by_key(|(_, token)| *token);
        for two in begins.windows(2).filter(|two| two[0].1 == two[1].1) {
            let overlap = !two[0].0.precedes(&two[1].0) && !two[1].0.precedes(&two[0].0);
            if overlap {
                let what = format!("token {} was given out twice", two[0].1);
                outcome.invalid(pair(what, key, &two[0].0, &two[1].0));
            }
        }
    }
}

/// Certain times of holding must not overlap.
fn check_times(key: &str, calls: &[Call<'_>], acquires: &[Call<'_>], outcome: &mut Outcome) {
    let releases: Vec<&Call<'_>> = calls
        .iter()
        .filter(|call| call.f() == "release" && !matches!(call.end, End::Fail(_)))
        .collect();
    let mut held: Vec<(u64, u64, Call<'_>)> = Vec::new();
    for acquire in acquires {
        let same = |release: &&&Call<'_>| {
            release.call_ns() >= acquire.return_ns()
                && (release.invoke.process == acquire.invoke.process
                    || (release.invoke.epoch.is_some() && release.invoke.epoch == token(acquire)))
        };
        // A holder that never released may have lost it at any time since: nothing is certain.
        if let Some(release) = releases.iter().find(same) {
            held.push((acquire.return_ns(), release.call_ns(), *acquire));
        }
    }
    held.sort_by_key(|(from_ns, _, _)| *from_ns);
    let mut latest: Option<(u64, Call<'_>)> = None;
    for (from_ns, to_ns, call) in held {
        if let Some((until_ns, earlier)) = latest
            && until_ns > from_ns
        {
            let what = format!(
                "processes {} and {} both held it for {} ns",
                earlier.invoke.process,
                call.invoke.process,
                until_ns.min(to_ns) - from_ns
            );
            let finding = pair(what, key, &earlier, &call);
            outcome.invalid(finding.time(from_ns, until_ns.min(to_ns)));
        }
        if latest.is_none_or(|(until_ns, _)| until_ns < to_ns) {
            latest = Some((to_ns, call));
        }
    }
}

fn pair(what: String, key: &str, earlier: &Call<'_>, later: &Call<'_>) -> Finding {
    Finding::new(what)
        .ops([earlier.invoke.index, later.invoke.index])
        .time(earlier.call_ns(), later.return_ns())
        .key(key)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{Did, history, ok};
    use crate::verdict::Verdict;

    fn did(f: &'static str, process: u64, token: u64, from: u64, to: u64) -> (u64, Did) {
        let did = ok(f, Value::Null, from, to, Value::Null);
        (process, did.by("p1", token))
    }

    /// Operations with the processes given.
    fn by_process(did: &[(u64, Did)]) -> History {
        let plain: Vec<Did> = did.iter().map(|(_, did)| did.clone()).collect();
        let mut history = history(&plain);
        for op in &mut history.0 {
            op.process = did[op.process as usize].0;
        }
        history
    }

    #[test]
    fn one_after_the_other_is_valid_by_time_and_by_token() {
        let history = by_process(&[
            did("acquire", 1, 1, 0, 5),
            did("act", 1, 1, 6, 7),
            did("acquire", 2, 2, 1, 11),
            did("release", 1, 1, 8, 12),
            did("act", 2, 2, 12, 14),
            did("release", 2, 2, 15, 16),
        ]);
        assert_eq!(check(&history, Exclusion::Time).verdict, Verdict::Valid);
        assert_eq!(check(&history, Exclusion::Token).verdict, Verdict::Valid);
    }

    #[test]
    fn two_holders_at_once_fail_by_time_and_pass_by_token_if_fenced() {
        let history = by_process(&[
            did("acquire", 1, 1, 0, 5),
            did("act", 1, 1, 6, 7),
            did("acquire", 2, 2, 6, 11),
            did("act", 2, 2, 12, 14),
            did("release", 1, 1, 20, 21),
            did("release", 2, 2, 25, 26),
        ]);
        let outcome = check(&history, Exclusion::Time);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(
            outcome.findings[0]
                .what
                .contains("1 and 2 both held it for 9 ns")
        );
        assert_eq!(check(&history, Exclusion::Token).verdict, Verdict::Valid);
    }

    #[test]
    fn an_act_of_the_one_before_fails_by_token() {
        let history = by_process(&[
            did("acquire", 1, 1, 0, 5),
            did("acquire", 2, 2, 6, 11),
            did("act", 2, 2, 12, 14),
            did("act", 1, 1, 15, 16),
        ]);
        let outcome = check(&history, Exclusion::Token);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(
            outcome.findings[0]
                .what
                .contains("act with token 1 began after act with token 2")
        );
    }

    #[test]
    fn tokens_of_acquires_rise_and_are_their_own() {
        let falls = by_process(&[did("acquire", 1, 2, 0, 5), did("acquire", 2, 1, 6, 7)]);
        assert_eq!(check(&falls, Exclusion::Time).verdict, Verdict::Invalid);
        let twice = by_process(&[did("acquire", 1, 2, 0, 5), did("acquire", 2, 2, 1, 6)]);
        let outcome = check(&twice, Exclusion::Time);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(outcome.findings[0].what.contains("given out twice"));
    }

    #[test]
    fn nothing_acquired_is_unknown() {
        let outcome = check(&History::default(), Exclusion::Time);
        assert_eq!(outcome.verdict, Verdict::Unknown);
    }
}
