//! Whole rolling restarts, with everything that the planner does at work: how often a slice moves.

use std::time::Duration;

use leasehold_proto::ClockTime;
use leasehold_proto::command::CloseProof;

use super::*;

const SLICES: u32 = 100;
const PODS: u16 = 10;
const PAUSE: Duration = Duration::from_secs(30);

/// How the pods are restarted.
#[derive(Clone, Copy)]
struct Roll {
    at_once: usize,
    /// The version that a pod comes back with.
    version: &'static str,
    consistency: Consistency,
    /// From the return of a pod to the drain of the next.
    gap: Duration,
    /// The leader changes before every drain: the new one knows nothing of those before.
    forgetful: bool,
    seed: u64,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            at_once: 1,
            version: "1",
            consistency: Consistency::Strong,
            gap: Duration::from_secs(10),
            forgetful: false,
            seed: 7,
        }
    }
}

/// What came of it.
#[derive(Debug)]
struct Rolled {
    moves: usize,
    /// Most slices that a pod had at any time.
    most: usize,
}

/// A world with a clock, planned whenever something happens, as the leader does.
struct Clocked {
    world: World,
    now: ClockTime,
    rng: u64,
    moves: usize,
    most: usize,
}

impl Clocked {
    fn random(&mut self, below: usize) -> usize {
        self.rng = self.rng.wrapping_add(1);
        (counts::mix(7, self.rng) % below as u64) as usize
    }

    fn plan(&mut self) -> bool {
        let look = Restart::look(self.world.restart.take(), self.now, &self.world.members());
        let until = look.as_ref().map(|it| it.leaves_uneven_until(PAUSE));
        self.world.restart = look;
        self.world.restarting = until.is_some_and(|until| until > self.now);
        let steps = self.world.plan(self.rng);
        let moves = |step: &&PlanStep| !matches!(step, PlanStep::Grant { .. });
        self.moves += steps.iter().filter(moves).count();
        let some = !steps.is_empty();
        self.world.carry_out(steps);
        let counts = self.world.counts();
        self.most = counts.into_iter().chain([self.most]).max().unwrap();
        some
    }

    /// Plans and lets handoffs end, in any order, until nothing happens any more.
    fn settle(&mut self) {
        loop {
            let planned = self.plan();
            let open: Vec<_> = self.world.state().handoffs().collect();
            if open.is_empty() && !planned {
                return;
            }
            if !open.is_empty() {
                let (_, _, handoff) = open[self.random(open.len())];
                self.world.complete(handoff);
            }
            self.now = self.now + Duration::from_millis(5);
        }
    }

    /// Lets time pass; the leader looks when it must.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.now + Duration::from_secs(1);
            self.settle();
        }
    }

    fn restart(&mut self, pods: &[SessionId], version: &str) {
        for session in pods {
            self.world.apply(Command::DrainSession {
                target: cart(),
                session: *session,
            });
        }
        self.settle();
        for session in pods {
            assert_eq!(self.world.state().owned_by(*session), 0);
            self.world.apply(Command::CloseSession {
                target: cart(),
                session: *session,
                proof: CloseProof::OwnWord,
            });
        }
        self.wait(Duration::from_secs(20));
        for _ in pods {
            let port = self.world.sessions.len() as u16 + 1;
            self.world.register(port, version);
            self.settle();
        }
    }
}

impl Roll {
    fn run(self) -> Rolled {
        let world = World::new(SLICES, PODS, self.consistency);
        let mut clocked = Clocked {
            world,
            now: ClockTime::from_nanos(0),
            rng: self.seed << 32,
            moves: 0,
            most: 0,
        };
        clocked.settle();
        assert_eq!(clocked.moves, 0);
        // In any order: numbers say when a pod came, not when it restarts.
        let mut pods = clocked.world.sessions.clone();
        pods.sort_by_key(|id| counts::mix(self.seed, id.as_u64()));
        for batch in pods.chunks(self.at_once) {
            clocked.restart(batch, self.version);
            clocked.wait(self.gap);
            if self.forgetful {
                clocked.world.restart = None;
            }
        }
        clocked.wait(PAUSE * 2);
        let live = clocked.world.state().live_sessions();
        let counts: Vec<usize> = live
            .map(|session| clocked.world.state().owned_by(session.id))
            .collect();
        assert_eq!(counts, [10; 10], "even in the end");
        Rolled {
            moves: clocked.moves,
            most: clocked.most,
        }
    }
}

/// The fewest moves that are possible when a pod has gone before its successor comes: every slice
/// leaves its pod once; those of the first batch find only pods that are to restart, and move
/// again; and the last batch comes back empty when everything else is where it will stay.
fn least_moves(at_once: usize) -> usize {
    SLICES as usize * (PODS as usize + 2 * at_once) / PODS as usize
}

#[test]
fn in_a_rolling_restart_a_slice_moves_about_once() {
    for (at_once, most) in [(1, 12), (2, 13)] {
        let mut worst = 0;
        for seed in 0..20 {
            for version in ["1", "2"] {
                for consistency in [Consistency::Strong, Consistency::Eventual] {
                    let roll = Roll {
                        at_once,
                        version,
                        consistency,
                        seed,
                        ..Roll::default()
                    };
                    let rolled = roll.run();
                    worst = worst.max(rolled.moves);
                    // Shares are whole numbers: at most two slices miss theirs.
                    let bound = least_moves(at_once) + 2;
                    assert!(rolled.moves <= bound, "seed {seed}: {rolled:?}");
                    // Those that serve have no more than an even share.
                    assert!(rolled.most <= most, "seed {seed}: {rolled:?}");
                }
            }
        }
        println!("{at_once} at once: at most {worst} moves of {SLICES} slices");
    }
}

#[test]
fn a_new_leader_tells_restarted_pods_by_their_version() {
    for seed in 0..20 {
        let roll = Roll {
            version: "2",
            forgetful: true,
            seed,
            ..Roll::default()
        };
        let rolled = roll.run();
        assert!(
            rolled.moves <= least_moves(1) + 2,
            "seed {seed}: {rolled:?}"
        );
    }
}

/// The control: where nothing is known of the restart the same simulation shows it.
#[test]
fn when_the_next_pod_comes_after_the_pause_slices_move_twice() {
    let roll = Roll {
        gap: PAUSE * 2,
        ..Roll::default()
    };
    let rolled = roll.run();
    println!("{} moves of {SLICES} slices", rolled.moves);
    assert!(rolled.moves > 180, "{rolled:?}");
}

fn clocked(slices: u32, pods: u16) -> Clocked {
    let mut clocked = Clocked {
        world: World::new(slices, pods, Consistency::Strong),
        now: ClockTime::from_nanos(0),
        rng: 0,
        moves: 0,
        most: 0,
    };
    clocked.settle();
    clocked
}

#[test]
fn a_pod_that_is_added_is_filled_at_once() {
    let mut clocked = clocked(20, 4);
    let added = clocked.world.register(99, "2");
    clocked.settle();
    assert_eq!(clocked.world.state().owned_by(added), 4);
}

#[test]
fn a_pod_that_stays_though_it_was_drained_does_not_keep_counts_uneven() {
    let mut clocked = clocked(20, 4);
    clocked.world.apply(Command::DrainSession {
        target: cart(),
        session: clocked.world.sessions[0],
    });
    clocked.settle();
    let added = clocked.world.register(99, "1");
    clocked.settle();
    assert_eq!(
        clocked.world.state().owned_by(added),
        0,
        "is the next to be drained?"
    );
    clocked.wait(PAUSE + Duration::from_secs(1));
    assert_eq!(clocked.world.state().owned_by(added), 5);
}

#[test]
fn pods_that_come_before_the_old_ones_go_take_every_slice_once() {
    let mut clocked = clocked(SLICES, PODS);
    let old = clocked.world.sessions.clone();
    for (place, leaving) in old.into_iter().enumerate() {
        clocked.world.apply(Command::DrainSession {
            target: cart(),
            session: leaving,
        });
        // The first new pod starts with the first drain: before, it is one more pod to fill.
        let port = 100 + place as u16;
        clocked.plan();
        clocked.world.register(port, "2");
        clocked.settle();
        clocked.wait(Duration::from_secs(5));
    }
    clocked.wait(PAUSE * 2);
    println!("{} moves", clocked.moves);
    assert!(
        clocked.moves <= SLICES as usize * 12 / 10,
        "{}",
        clocked.moves
    );
}
