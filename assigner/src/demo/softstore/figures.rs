//! From what was seen to figures.

use leasehold_figures::{Goal, Report, quantile};

use super::answers::{Answer, Ending};
use super::arm::{Arm, Seen};

/// The lowest hit rate is looked for in stretches of this length.
const STRETCH_NS: u64 = 1_000_000_000;

/// How an arm's figures are called.
struct Names {
    hit_rate_during: &'static str,
    hit_rate_lowest: &'static str,
    failed_requests: &'static str,
    repeated_requests: &'static str,
    stale_answers: &'static str,
    wrong_answers: &'static str,
    backing_reads_per_s: &'static str,
    p99_ms: &'static str,
}

const STRONG: Names = Names {
    hit_rate_during: "hit_rate_during_strong_transfer",
    hit_rate_lowest: "hit_rate_lowest_strong_transfer",
    failed_requests: "failed_requests_strong",
    repeated_requests: "repeated_requests_strong",
    stale_answers: "stale_answers_strong",
    wrong_answers: "wrong_answers_strong",
    backing_reads_per_s: "backing_reads_per_s_strong_transfer",
    p99_ms: "request_ms_p99_strong_transfer",
};
const EVENTUAL: Names = Names {
    hit_rate_during: "hit_rate_during_eventual_transfer",
    hit_rate_lowest: "hit_rate_lowest_eventual_transfer",
    failed_requests: "failed_requests_eventual",
    repeated_requests: "repeated_requests_eventual",
    stale_answers: "stale_answers_eventual",
    wrong_answers: "wrong_answers_eventual",
    backing_reads_per_s: "backing_reads_per_s_eventual_transfer",
    p99_ms: "request_ms_p99_eventual_transfer",
};
const COLD: Names = Names {
    hit_rate_during: "hit_rate_during_no_transfer",
    hit_rate_lowest: "hit_rate_lowest_no_transfer",
    failed_requests: "failed_requests_no_transfer",
    repeated_requests: "repeated_requests_no_transfer",
    stale_answers: "stale_answers_no_transfer",
    wrong_answers: "wrong_answers_no_transfer",
    backing_reads_per_s: "backing_reads_per_s_no_transfer",
    p99_ms: "request_ms_p99_no_transfer",
};
const STATIC: Names = Names {
    hit_rate_during: "hit_rate_during_static",
    hit_rate_lowest: "hit_rate_lowest_static",
    failed_requests: "failed_requests_static",
    repeated_requests: "repeated_requests_static",
    stale_answers: "stale_answers_static",
    wrong_answers: "wrong_answers_static",
    backing_reads_per_s: "backing_reads_per_s_static",
    p99_ms: "request_ms_p99_static",
};

fn names(arm: Arm) -> &'static Names {
    match arm {
        Arm::Strong => &STRONG,
        Arm::Eventual => &EVENTUAL,
        Arm::Cold => &COLD,
        Arm::Static => &STATIC,
    }
}

/// The share of reads, among those due from `from` to `to`, that a cache answered; `None` where
/// nothing was read.
pub fn hit_rate(answers: &[Answer], (from, to): (u64, u64)) -> Option<f64> {
    let due = answers
        .iter()
        .filter(|answer| (from..to).contains(&answer.due_ns));
    let (mut hits, mut reads) = (0u64, 0u64);
    for answer in due {
        hits += u64::from(answer.ending == Ending::Hit);
        reads += u64::from(matches!(answer.ending, Ending::Hit | Ending::Miss));
    }
    (reads > 0).then(|| hits as f64 / reads as f64)
}

/// The 99th percentile of requests due from `from` to `to`, in milliseconds.
pub fn p99_ms(answers: &[Answer], (from, to): (u64, u64)) -> Option<f64> {
    let due = answers
        .iter()
        .filter(|answer| (from..to).contains(&answer.due_ns));
    let ended = due.filter(|answer| answer.ending != Ending::Repeated);
    let ms: Vec<f64> = ended.map(Answer::ms).collect();
    quantile(&ms, 0.99)
}

/// Reads of the backing store a second, between the samples nearest to `from` and `to`.
pub fn backing_reads_per_s(seen: &Seen, (from, to): (u64, u64)) -> Option<f64> {
    let near = |at: u64| seen.work.iter().min_by_key(|(ns, _)| ns.abs_diff(at));
    let ((from, before), (to, after)) = near(from).zip(near(to))?;
    let seconds = to.checked_sub(*from).filter(|ns| *ns > 0)? as f64 / 1e9;
    Some((after.loads - before.loads) as f64 / seconds)
}

/// What the arms show, beside what is claimed.
/// `kept` is how much of the hit rate must stay with transfer, at most 1.
pub fn figures(report: &mut Report, all: &[Seen], kept: f64) {
    let of = |arm| all.iter().find(|seen| seen.arm == arm);
    let before = |seen: &Seen| (seen.begin_ns, seen.restarting().0);
    let reason = "the arm was not played";
    let strong = of(Arm::Strong);
    let steady = strong.or(all.first());
    let hit_rate_before = steady.and_then(|seen| hit_rate(&seen.answers, before(seen)));
    report.maybe(
        "hit_rate_before",
        hit_rate_before,
        "1",
        Goal::AtLeast(0.5),
        reason,
    );
    let answers = all.iter().flat_map(|seen| &seen.answers);
    let requests = answers.filter(|answer| answer.ending != Ending::Repeated);
    let requests = requests.count();
    report.figure("requests_total", requests as f64, "1", Goal::AtLeast(1.0));
    for arm in [Arm::Strong, Arm::Eventual, Arm::Cold, Arm::Static] {
        match of(arm) {
            Some(seen) => arm_figures(report, seen, before(seen), kept),
            None => report.absent(names(arm).hit_rate_during, reason),
        }
    }
    let p99_before = steady.and_then(|seen| p99_ms(&seen.answers, before(seen)));
    report.maybe(
        "request_ms_p99_before",
        p99_before,
        "ms",
        Goal::None,
        reason,
    );
    let reads_before = steady.and_then(|seen| backing_reads_per_s(seen, before(seen)));
    report.maybe(
        "backing_reads_per_s_before",
        reads_before,
        "1/s",
        Goal::None,
        reason,
    );
    let reads = |arm| of(arm).and_then(|seen| backing_reads_per_s(seen, seen.restarting()));
    let ratio = reads(Arm::Cold)
        .zip(reads(Arm::Strong).filter(|reads| *reads > 0.0))
        .map(|(cold, strong)| cold / strong);
    let reason = "both strong arms are needed";
    report.maybe("backing_reads_ratio", ratio, "1", Goal::None, reason);
}

fn arm_figures(report: &mut Report, seen: &Seen, before: (u64, u64), kept: f64) {
    let names = names(seen.arm);
    let (answers, during) = (&seen.answers, seen.restarting());
    let transfers = matches!(seen.arm, Arm::Strong | Arm::Eventual);
    let nothing = "nothing was read";
    let goal = match hit_rate(answers, before) {
        Some(before) if transfers => Goal::AtLeast((before * kept * 1e4).round() / 1e4),
        _ => Goal::None,
    };
    let rate = hit_rate(answers, during);
    report.maybe(names.hit_rate_during, rate, "1", goal, nothing);
    let starts = (during.0..during.1).step_by(STRETCH_NS as usize);
    let lowest = starts
        .filter_map(|at| hit_rate(answers, (at, at + STRETCH_NS)))
        .min_by(f64::total_cmp);
    report.maybe(names.hit_rate_lowest, lowest, "1", Goal::None, nothing);
    // Only leases promise that no request is cut off and no answer is old; bytes are right
    // everywhere.
    let leased = match seen.arm {
        Arm::Strong | Arm::Cold => Goal::AtMost(0.0),
        Arm::Eventual | Arm::Static => Goal::None,
    };
    let count = |ending| {
        answers
            .iter()
            .filter(|answer| answer.ending == ending)
            .count() as f64
    };
    report.figure(names.failed_requests, count(Ending::Failed), "1", leased);
    let repeated = count(Ending::Repeated);
    report.figure(names.repeated_requests, repeated, "1", leased);
    report.figure(names.stale_answers, count(Ending::Stale), "1", leased);
    report.figure(
        names.wrong_answers,
        count(Ending::Wrong),
        "1",
        Goal::AtMost(0.0),
    );
    let reads = backing_reads_per_s(seen, during);
    report.maybe(names.backing_reads_per_s, reads, "1/s", Goal::None, nothing);
    report.maybe(
        names.p99_ms,
        p99_ms(answers, during),
        "ms",
        Goal::None,
        nothing,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::kv::WorkReply;

    fn answer(due_ns: u64, ending: Ending) -> Answer {
        Answer {
            due_ns,
            end_ns: due_ns + 2_000_000,
            ending,
        }
    }

    #[test]
    fn a_hit_rate_counts_the_reads_of_its_stretch() {
        let answers = [
            answer(1, Ending::Hit),
            answer(2, Ending::Hit),
            answer(3, Ending::Miss),
            answer(4, Ending::Written),
            answer(5, Ending::Failed),
            answer(9, Ending::Miss),
        ];
        assert_eq!(hit_rate(&answers, (1, 3)), Some(1.0));
        assert_eq!(hit_rate(&answers, (2, 6)), Some(0.5));
        assert_eq!(hit_rate(&answers, (4, 6)), None);
        assert_eq!(p99_ms(&answers, (1, 3)), Some(2.0));
    }

    #[test]
    fn a_failed_request_or_a_lower_hit_rate_misses_the_goal() {
        let second = 1_000_000_000;
        let work = |at: u64, loads| {
            (
                at * second,
                WorkReply {
                    loads,
                    ..WorkReply::default()
                },
            )
        };
        let seen = |during: [Ending; 2]| Seen {
            arm: Arm::Strong,
            answers: vec![
                answer(1, Ending::Hit),
                answer(second, during[0]),
                answer(second, during[1]),
            ],
            work: vec![work(0, 0), work(1, 10), work(3, 50)],
            restarts: vec![(second, 2 * second), (2 * second, 3 * second)],
            begin_ns: 0,
            end_ns: 3 * second,
        };
        let met = |during| {
            let mut report = Report::new("test", &std::env::temp_dir());
            figures(&mut report, &[seen(during)], 0.99);
            assert_eq!(
                backing_reads_per_s(&seen(during), (second, 3 * second)),
                Some(20.0)
            );
            report.all_met()
        };
        assert!(met([Ending::Hit, Ending::Written]));
        assert!(!met([Ending::Hit, Ending::Miss]));
        assert!(!met([Ending::Hit, Ending::Failed]));
        assert!(!met([Ending::Hit, Ending::Stale]));
    }
}
