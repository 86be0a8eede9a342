//! Logs, and what they make certain.

use super::*;

const MS: u64 = 1_000_000;

/// Reads a log of these lines, with times in milliseconds; the last round of probes at
/// `round_ms`. Lines have `B` for the lease clock, which is 1000 ms ahead of true time.
fn holds(lines: &[&str], round_ms: u64) -> Vec<(u64, u64)> {
    let witness = witness(lines, round_ms);
    let mut found: Vec<(u64, u64)> = witness
        .holds
        .iter()
        .map(|hold| (hold.from_ns / MS, hold.to_ns / MS))
        .collect();
    found.sort_unstable();
    found
}

fn trimmed(lines: &[&str]) -> Trimmed {
    witness(lines, 0).trimmed
}

fn witness(lines: &[&str], round_ms: u64) -> Witness {
    let mut reader = Reader::new("p1", 0);
    reader.line("log app 0").unwrap();
    for line in lines {
        let words: Vec<String> = line.split(' ').map(in_ns).collect();
        reader.line(&words.join(" ")).unwrap();
    }
    let mut witness = Witness::default();
    reader.finish(round_ms * MS, &mut witness);
    witness
}

/// `12ms` in nanoseconds, `12B` the same on the lease clock; other words as they are.
fn in_ns(word: &str) -> String {
    let number = |text: &str| text.parse::<u64>().unwrap();
    match (word.strip_suffix("ms"), word.strip_suffix('B')) {
        (Some(ms), _) => (number(ms) * MS).to_string(),
        (_, Some(ms)) => ((number(ms) + 1_000) * MS).to_string(),
        _ => word.to_owned(),
    }
}

#[test]
fn a_slice_that_is_given_up_in_time_is_held_until_the_end_is_written() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "freeze 50ms 50B 0 f 7",
        "stop 51ms 0 f 7 49ms",
        "end 60ms 60B 0 f 7",
    ];
    assert_eq!(holds(&lines, 90), [(10, 60)]);
}

#[test]
fn a_tenure_between_two_probes_is_not_missed() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "end 11ms 11B 0 f 7",
    ];
    assert_eq!(holds(&lines, 90), [(10, 11)]);
}

#[test]
fn what_a_paused_process_writes_late_counts_for_nothing() {
    // Paused from 51 to 400; the deadline was at 100.
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "end 400ms 400B 0 f 7 50ms",
    ];
    assert_eq!(holds(&lines, 410), [(10, 50)]);
}

#[test]
fn what_an_old_answer_gives_a_process_that_wakes_counts_for_nothing() {
    // Paused from 51 to 400; an answer of before the pause moves the deadline to 120.
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "end 400ms 400B 0 f 7 50ms",
        "begin 400ms 400B 0 f 7",
        "lease 400ms 400B 120B",
        "end 401ms 401B 0 f 7",
    ];
    assert_eq!(holds(&lines, 410), [(10, 50)]);
}

#[test]
fn a_lapse_ends_one_interval_and_the_next_renewal_begins_another() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "stop 101ms 0 f 7 99ms",
        "end 300ms 300B 0 f 7",
        "begin 300ms 300B 0 f 7",
        "lease 300ms 300B 500B",
        "pass 301ms 0 f 7",
    ];
    assert_eq!(holds(&lines, 320), [(10, 99), (300, 320)]);
}

#[test]
fn a_process_that_serves_beyond_its_deadline_is_taken_at_its_word() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "end 300ms 300B 0 f 7 299ms",
        "pass 301ms 0 f 7",
        "stop 351ms 0 f 7 350ms",
    ];
    assert_eq!(holds(&lines, 400), [(10, 350)]);
}

#[test]
fn a_clock_that_has_left_true_time_is_not_believed() {
    // The lease clock stands still; by it the lease never runs out.
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "clock 200ms 50B 0",
        "end 300ms 50B 0 f 7 120ms",
    ];
    assert_eq!(holds(&lines, 310), [(10, 120)]);
}

#[test]
fn a_killed_process_served_until_its_last_round_of_probes() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 7 7",
        "begin 20ms 20B 8 f 8",
        "pass 21ms 0 7 7",
    ];
    assert_eq!(holds(&lines, 60), [(10, 60)]);
}

#[test]
fn a_guard_that_verifies_after_the_end_is_evidence() {
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 f 7",
        "end 30ms 30B 0 f 7",
        "late 45ms 0 f 7",
    ];
    assert_eq!(holds(&lines, 90), [(10, 45)]);
}

#[test]
fn without_a_lease_everything_is_held_until_the_end() {
    let lines = [
        "lease 0ms 0B 18446744073709551615",
        "begin 10ms 10B 0 f 7",
        "pass 11ms 0 f 7",
        "end 900ms 900B 0 f 7 899ms",
    ];
    assert_eq!(holds(&lines, 910), [(10, 900)]);
}

#[test]
fn a_line_that_cannot_be_understood_is_an_error() {
    let mut reader = Reader::new("p1", 0);
    assert!(reader.line("begin 10").is_err());
    assert!(reader.line("hum 10").is_err());
}

#[test]
fn a_rate_within_the_bound_is_believed_for_ever() {
    // 480 ppm slow for 100 s: 48 ms off in the end, and the deadline still stands.
    let lines = [
        "lease 0ms 0B 2000B",
        "clock 25000ms 24988B 0",
        "clock 50000ms 49976B 0",
        "lease 99000ms 98953B 100953B",
        "begin 99100ms 99053B 0 f 7",
        "end 100000ms 99952B 0 f 7 99999ms",
    ];
    assert_eq!(holds(&lines, 100_010), [(99_100, 100_000)]);
    assert_eq!(trimmed(&lines), Trimmed::default());
}

#[test]
fn a_slow_rate_in_many_small_steps_is_not_believed() {
    // A tenth slow: each step is within what reading clocks may cost, all of them are not.
    let mut lines = vec![
        "lease 0ms 0B 500B".to_owned(),
        "begin 10ms 10B 0 f 7".to_owned(),
    ];
    for step in 1..=50u64 {
        lines.push(format!("clock {}ms {}B 0", 10 + step * 10, 10 + step * 9));
    }
    lines.push("end 520ms 469B 0 f 7 450ms".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(holds(&lines, 530), [(10, 450)]);
    let counted = trimmed(&lines);
    assert_eq!((counted.holds_by_probe_only, counted.holds_dropped), (1, 0));
    assert_eq!(counted.trim_ms_max, 70.0);
}

#[test]
fn what_is_left_out_is_counted_until_the_deadline_only() {
    // One tenure paused over its deadline at 100, one in which no check ever passed.
    let lines = [
        "lease 0ms 0B 100B",
        "begin 10ms 10B 0 7 7",
        "pass 11ms 0 7 7",
        "end 400ms 400B 0 7 7 50ms",
        "begin 400ms 400B 8 f 7",
        "end 401ms 401B 8 f 7",
    ];
    let counted = trimmed(&lines);
    assert_eq!((counted.holds_by_probe_only, counted.holds_dropped), (1, 1));
    assert_eq!(counted.trim_ms_max, 50.0);
}
