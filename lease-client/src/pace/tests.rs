//! Statements about the speed, against a pod whose requests slow down as state moves.

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_millis(100);
const FRAME: usize = 256 << 10;

/// Requests take `before` when nothing moves, and twice as long when `half` bytes move in a second.
struct Pod {
    now: Instant,
    pacer: Pacer,
    before: Duration,
    half: f64,
    users: bool,
    /// Of all that requests take, what the application does not see.
    lag: Duration,
    /// Moves each window's p99 up and down by up to this share.
    noise: f64,
    seed: u64,
}

/// What a window came to.
struct Ran {
    bytes: f64,
    p99: Duration,
}

impl Pod {
    fn new(speed: Speed, half: f64, noise: f64, seed: u64) -> Self {
        let (now, before) = (Instant::now(), Duration::from_millis(2));
        let mut pacer = Pacer::new(speed, now);
        pacer.begin(now, Some(before));
        Self {
            now,
            pacer,
            before,
            half,
            users: true,
            lag: Duration::ZERO,
            noise,
            seed,
        }
    }

    /// A number between -1 and 1.
    fn chance(&mut self) -> f64 {
        let next = self.seed.wrapping_mul(6_364_136_223_846_793_005);
        self.seed = next.wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as f64 / f64::from(1 << 30) - 1.0
    }

    /// A transfer sends all that it may for a window; then the speed is adjusted.
    fn run(&mut self) -> Ran {
        let end = self.now + WINDOW;
        let mut sent = 0;
        while self.now < end {
            match self.pacer.may_send(self.now, FRAME) {
                Ok(()) => sent += FRAME,
                Err(wait) => self.now += wait.min(end - self.now),
            }
        }
        let bytes = sent as f64;
        let slower = 1.0 + bytes / WINDOW.as_secs_f64() / self.half;
        let noise = 1.0 + self.noise * self.chance();
        let p99 = self.before.mul_f64(slower * noise);
        let observed = self.users.then_some(p99 - self.lag);
        self.pacer.adjust(self.now, observed, self.lag);
        Ran { bytes, p99 }
    }

    /// Bytes per second and mean p99 of so many windows.
    fn mean(&mut self, windows: u32) -> (f64, Duration) {
        let ran: Vec<_> = (0..windows).map(|_| self.run()).collect();
        let bytes: f64 = ran.iter().map(|ran| ran.bytes).sum();
        let p99: Duration = ran.iter().map(|ran| ran.p99).sum();
        (bytes / (WINDOW * windows).as_secs_f64(), p99 / windows)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each by its own measure: the best speed is the one at which requests take just the target.
    #[test]
    fn requests_stay_below_the_target_and_transfers_are_not_much_slower_than_they_could_be(half_mb in 100u32..4_000, noise in 0.0..0.15, seed: u64) {
        let half = f64::from(half_mb) * 1e6;
        let mut pod = Pod::new(Speed::default(), half, noise, seed);
        pod.mean(100);
        let (bytes_per_s, p99) = pod.mean(200);
        let best = (SLOWER - 1.0) * half;
        prop_assert!(p99 <= pod.before.mul_f64(SLOWER), "{p99:?}");
        prop_assert!(bytes_per_s >= best * 0.4, "{bytes_per_s} of {best}");
    }

    #[test]
    fn no_more_than_the_cap_goes_in_any_span(cap in 1u64..1 << 31, steps in proptest::collection::vec((0u64..50_000, 1usize..1 << 20, proptest::option::of(1u64..10)), 1..200)) {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(Speed { most_bytes_per_s: Some(cap), user_p99: None }, now);
        pacer.begin(now, None);
        let mut sent: Vec<(Instant, usize)> = Vec::new();
        for (wait_us, bytes, p99) in steps {
            now += Duration::from_micros(wait_us);
            if pacer.may_send(now, bytes).is_ok() {
                sent.push((now, bytes));
            }
            if wait_us % 3 == 0 {
                pacer.adjust(now, p99.map(Duration::from_millis), Duration::ZERO);
            }
        }
        for first in 0..sent.len() {
            let (begin, _) = sent[first];
            let mut bytes = 0;
            for &(end, sent) in &sent[first..] {
                // One send more than was allowed may go.
                let span = (end - begin) + BURST;
                prop_assert!(bytes as f64 <= cap as f64 * span.as_secs_f64() + 1.0);
                bytes += sent;
            }
        }
    }

    #[test]
    fn who_waits_as_told_may_send(rate in 1u64..1 << 32, bytes in 1usize..1 << 20) {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(Speed { most_bytes_per_s: Some(rate), user_p99: None }, now);
        for _ in 0..20 {
            if let Err(wait) = pacer.may_send(now, bytes) {
                now += wait + Duration::from_nanos(1);
                prop_assert!(pacer.may_send(now, bytes).is_ok());
            }
        }
    }
}

#[test]
fn the_speed_comes_back_when_the_users_go() {
    let mut pod = Pod::new(Speed::default(), 200e6, 0.0, 1);
    pod.mean(100);
    let (busy, _) = pod.mean(50);
    pod.users = false;
    pod.mean(20);
    let (free, _) = pod.mean(10);
    assert!(busy < 70e6 && free > 1e9, "{busy} {free}");
}

#[test]
fn it_never_falls_below_the_floor_so_that_a_transfer_ends() {
    let speed = Speed {
        user_p99: Some(Duration::from_nanos(1)),
        ..Speed::default()
    };
    let mut pod = Pod::new(speed, 1e6, 0.0, 1);
    pod.mean(100);
    assert_eq!(pod.pacer.bytes_per_s(), FLOOR as u64);
    pod.pacer
        .adjust(pod.now, Some(Duration::ZERO), Duration::ZERO);
    assert!(pod.pacer.bytes_per_s() >= FLOOR as u64);
}

#[test]
fn a_given_target_counts_whatever_was_before() {
    let speed = Speed {
        user_p99: Some(Duration::from_millis(4)),
        ..Speed::default()
    };
    let mut pod = Pod::new(speed, 400e6, 0.05, 1);
    pod.mean(100);
    let (bytes_per_s, p99) = pod.mean(100);
    assert!(
        p99 <= Duration::from_millis(4) && p99 > Duration::from_millis(3),
        "{p99:?}"
    );
    assert!(bytes_per_s > 200e6, "{bytes_per_s}");
}

#[test]
fn what_was_learned_is_kept_for_the_next_transfer_and_forgotten_after_a_rest() {
    let mut pod = Pod::new(Speed::default(), 60e6, 0.0, 1);
    pod.mean(100);
    let learned = pod.pacer.bytes_per_s();
    assert!(learned < START as u64);
    let slow = Some(Duration::from_secs(1));
    pod.pacer.begin(pod.now + REST / 2, slow);
    let known = (pod.pacer.bytes_per_s(), pod.pacer.before);
    assert_eq!(known, (learned, Some((pod.before, Duration::ZERO))));
    pod.pacer.begin(pod.now + REST * 3, slow);
    let known = (pod.pacer.bytes_per_s(), pod.pacer.before);
    assert_eq!(known, (START as u64, None));
    assert_eq!(pod.pacer.observed_before, slow);
}

/// A pacer and when its transfer began.
fn begun(p99_ms: Option<u64>) -> (Pacer, Instant) {
    let now = Instant::now();
    let mut pacer = Pacer::new(Speed::default(), now);
    assert!(pacer.is_idle(now));
    pacer.begin(now, p99_ms.map(Duration::from_millis));
    (pacer, now)
}

/// A transfer is held up, and the speed adjusted when it is to be.
fn adjust(pacer: &mut Pacer, p99_ms: Option<u64>, lag: Duration) -> (u64, bool) {
    let now = pacer.adjusts_at();
    pacer.sent(now, 1 << 30);
    assert!(pacer.may_send(now, 1).is_err());
    let restart = pacer.adjust(now, p99_ms.map(Duration::from_millis), lag);
    (pacer.bytes_per_s() >> 20, restart)
}

#[test]
fn it_begins_slowly_until_it_is_known_that_there_are_no_requests() {
    let (mut pacer, begun) = begun(None);
    assert_eq!(pacer.bytes_per_s(), START as u64);
    assert_eq!(pacer.adjusts_at(), begun + FIRST_LOOK);
    assert_eq!(adjust(&mut pacer, None, Duration::ZERO), (4 << 10, false));
    assert_eq!(pacer.adjusts_at(), begun + FIRST_LOOK + ADJUST);
    assert_eq!(adjust(&mut pacer, None, Duration::ZERO), (8 << 10, false));
    // Requests come: what was measured beside the fast transfer says nothing.
    assert_eq!(adjust(&mut pacer, Some(1), Duration::ZERO), (32, true));
    assert_eq!(adjust(&mut pacer, Some(1), Duration::ZERO), (32, false));
    // They went, and another transfer begins after a moment.
    for _ in 1..QUIET.as_millis() / ADJUST.as_millis() {
        assert_eq!(adjust(&mut pacer, None, Duration::ZERO), (32, false));
    }
    assert_eq!(adjust(&mut pacer, None, Duration::ZERO), (4 << 10, false));
    let now = pacer.adjusted_at + IDLE * 2;
    assert!(pacer.is_idle(now) && !pacer.is_idle(now - IDLE * 2));
    pacer.begin(now, None);
    assert_eq!(pacer.bytes_per_s(), START as u64);
}

#[test]
fn requests_are_compared_with_what_they_took_before_and_how_late_they_were_at_first() {
    let (mut pacer, _) = begun(Some(2));
    let ms = Duration::from_millis;
    for _ in 0..3 {
        assert_eq!(adjust(&mut pacer, Some(5), ms(1)), (32, false), "it learns");
    }
    // Up to 1.3 times three milliseconds.
    let (faster, restart) = adjust(&mut pacer, Some(2), ms(1));
    assert!(faster > 32 && !restart);
    assert_eq!(pacer.before, Some((ms(2), ms(1))));
    let (slower, restart) = adjust(&mut pacer, Some(2), ms(2));
    assert!(slower < faster && restart, "{slower}");
}

#[test]
fn lag_that_was_chance_while_it_learned_is_forgotten() {
    let (mut pacer, _) = begun(Some(1));
    let ms = Duration::from_millis;
    for _ in 0..5 {
        adjust(&mut pacer, Some(1), ms(64));
    }
    assert_eq!(pacer.before, Some((ms(1), ms(64))));
    for _ in 0..20 {
        adjust(&mut pacer, Some(1), ms(1));
    }
    let (learned, _) = adjust(&mut pacer, Some(1), ms(1));
    assert!(adjust(&mut pacer, Some(1), ms(2)).0 < learned);
}

#[test]
fn requests_that_hardly_take_time_may_take_a_little_more() {
    let (mut pacer, _) = begun(Some(0));
    let us = Duration::from_micros;
    for _ in 0..5 {
        adjust(&mut pacer, Some(0), us(50));
    }
    let learned = pacer.bytes_per_s() >> 20;
    assert!(adjust(&mut pacer, Some(0), us(120)).0 > learned);
    assert!(adjust(&mut pacer, Some(0), us(300)).1);
}

/// What the application observes stays the same: it is the runtime that is late.
#[test]
fn what_the_application_does_not_see_slows_transfers_too() {
    let mut pod = Pod::new(Speed::default(), 200e6, 0.05, 1);
    pod.now = pod.pacer.adjusts_at();
    let mut speeds = Vec::new();
    for _ in 0..300 {
        let late = pod.before.mul_f64(pod.pacer.bytes_per_s() as f64 / 200e6);
        let now = pod.now;
        while pod.pacer.may_send(now, FRAME).is_ok() {}
        pod.pacer.adjust(now, Some(pod.before), late);
        speeds.push(pod.pacer.bytes_per_s());
        pod.now += WINDOW;
    }
    let late = &speeds[100..];
    let mean = late.iter().sum::<u64>() / late.len() as u64;
    assert!((60_000_000..130_000_000).contains(&mean), "{mean}");
}

#[test]
fn a_frame_is_what_goes_in_half_a_millisecond() {
    let (mut pacer, _) = begun(None);
    assert_eq!(pacer.frame_bytes(1 << 20), 16_777);
    pacer.speed.most_bytes_per_s = Some(1);
    pacer.set(START);
    assert_eq!(pacer.frame_bytes(1 << 20), LEAST_FRAME);
    assert_eq!(pacer.frame_bytes(100), 100);
    pacer.speed.most_bytes_per_s = None;
    pacer.set(FREE);
    assert_eq!(pacer.frame_bytes(1 << 20), 1 << 20);
}

#[test]
fn what_went_without_asking_is_made_up_for() {
    let now = Instant::now();
    let speed = Speed {
        most_bytes_per_s: Some(1 << 20),
        ..Speed::default()
    };
    let mut pacer = Pacer::new(speed, now);
    pacer.begin(now, None);
    (0..4).for_each(|_| pacer.sent(now, 1 << 20));
    let after = |s| now + Duration::from_secs(s);
    assert!(pacer.may_send(after(3), 1).is_err());
    assert!(pacer.may_send(after(4), 1).is_ok());
}

#[test]
fn a_speed_that_nobody_uses_does_not_rise() {
    let now = Instant::now();
    let mut pacer = Pacer::new(Speed::default(), now);
    pacer.begin(now, Some(Duration::from_millis(1)));
    for n in 1..100 {
        pacer.adjust(now + WINDOW * n, None, Duration::ZERO);
    }
    assert_eq!(pacer.bytes_per_s(), START as u64);
}

#[test]
fn a_transfer_that_falls_behind_is_slowed_down_less_and_less() {
    let begun = Instant::now();
    let mut pacer = Pacer::new(Speed::default(), begun);
    pacer.begin(begun, Some(Duration::from_millis(1)));
    let slow = Some(Duration::from_secs(1));
    let mut at = |ms: u32, behind| {
        let now = begun + Duration::from_millis(ms.into());
        if behind {
            pacer.falls_behind(now);
        }
        pacer.adjust(now, slow, Duration::ZERO);
        pacer.bytes_per_s() >> 20
    };
    assert_eq!((0..10).map(|n| at(n * 100, false)).min(), Some(16));
    let speeds: Vec<u64> = (10..60).map(|n| at(n * 100, true)).collect();
    assert_eq!(
        [speeds[0], speeds[9], speeds[10], speeds[40]],
        [32, 32, 64, 512]
    );
    // Slowly written again.
    assert_eq!((80..120).map(|n| at(n * 100, false)).min(), Some(16));
}

#[test]
fn what_must_go_in_time_goes_whatever_requests_take_but_within_the_cap() {
    let begun = Instant::now();
    let slow = Some(Duration::from_secs(1));
    let gigabyte = 1 << 30;
    let at_end = |most_bytes_per_s| {
        let speed = Speed {
            most_bytes_per_s,
            user_p99: Some(Duration::from_millis(1)),
        };
        let mut pacer = Pacer::new(speed, begun);
        pacer.begin(begun, slow);
        let mut now = begun;
        for _ in 0..100 {
            now += WINDOW;
            pacer.adjust(now, slow, Duration::ZERO);
        }
        assert!(pacer.bytes_per_s() <= FLOOR as u64 && !pacer.is_urgent(now));
        pacer.must_go(now, gigabyte, Duration::from_secs(10));
        for _ in 0..10 {
            now += WINDOW;
            pacer.adjust(now, slow, Duration::ZERO);
        }
        assert!(pacer.is_urgent(now));
        let speed = pacer.bytes_per_s();
        for _ in 0..40 {
            now += WINDOW;
            pacer.adjust(now, slow, Duration::ZERO);
        }
        assert!(!pacer.is_urgent(now), "it was said long ago");
        assert!(pacer.bytes_per_s() <= FLOOR as u64);
        speed
    };
    assert!(at_end(None) >= gigabyte / 10);
    assert_eq!(at_end(Some(9 << 20)), 9 << 20);
}

#[test]
fn who_lets_in_what_must_come_in_time_says_so_to_nobody_and_then_goes_slowly_again() {
    let begun = Instant::now();
    let slow = Some(Duration::from_secs(1));
    for cap in [None, Some(9 << 20)] {
        let speed = Speed {
            most_bytes_per_s: cap,
            user_p99: Some(Duration::from_millis(1)),
        };
        let mut pacer = Pacer::new(speed, begun);
        pacer.begin(begun, slow);
        pacer.let_in(begun);
        assert_eq!(pacer.bytes_per_s(), cap.unwrap_or(CEILING as u64));
        assert!(!pacer.is_urgent(begun));
        // No transfer was under way meanwhile, so that nothing was adjusted.
        pacer.begin(begun + MUST_GO_FOR, slow);
        assert!(pacer.bytes_per_s() <= START as u64);
    }
}
