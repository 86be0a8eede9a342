//! Golden scripts: what is told to the table and to the Holders, and what they say to it.
//!
//! Each `golden/*.txt` is a list of commands; below `----` stands what they print, byte for byte.
//! `LEASEHOLD_REGENERATE=1` writes the outputs anew; read the difference before it is committed.

#[path = "rules/script.rs"]
mod script;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use leasehold_proto::command::{EndWord, PlanStep, Reply};
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, Output, Verdict};
use leasehold_proto::message::{Ready, ReadyAnswer, Renewed, Word};
use leasehold_proto::target::Consistency;
use leasehold_proto::{ClockTime, Mode, SessionId};
use script::{DIGEST, KEY, Script, TTL, at};

/// What a Slicelet said directly to another.
enum Direct {
    Ready(Ready),
    Answer(SessionId, ReadyAnswer),
}

fn word_names(words: &[Word]) -> String {
    let name = |word: &Word| match word {
        Word::Surrendered(id, _) => format!("surrendered {id}"),
        Word::Refused(id) => format!("refused {id}"),
        Word::Accepted(id) => format!("accepted {id}"),
    };
    let names: Vec<String> = words.iter().map(name).collect();
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

struct Stage {
    script: Script,
    now_ms: u64,
    holders: BTreeMap<String, Holder>,
    names: BTreeMap<SessionId, String>,
    direct: VecDeque<Direct>,
    out: String,
}

impl Stage {
    fn new(consistency: Consistency) -> Self {
        Self {
            script: Script::with(consistency, 1),
            now_ms: 0,
            holders: BTreeMap::new(),
            names: BTreeMap::new(),
            direct: VecDeque::new(),
            out: String::new(),
        }
    }

    fn now(&self) -> ClockTime {
        at(self.now_ms)
    }

    fn say(&mut self, line: String) {
        writeln!(self.out, "{line}").expect("a string");
    }

    fn session(&self, name: &str) -> SessionId {
        let known = self.names.iter().filter(|(_, known)| *known == name);
        *known
            .map(|(session, _)| session)
            .next_back()
            .unwrap_or_else(|| panic!("{name} is not registered"))
    }

    fn name(&self, session: SessionId) -> String {
        self.names
            .get(&session)
            .cloned()
            .unwrap_or_else(|| session.to_string())
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["wait", ms] => self.wait(ms.parse().expect("milliseconds")),
            ["register", name] => self.register(name),
            ["grant", name] => {
                let to = self.session(name);
                self.script.grant(to);
                self.table();
            }
            ["begin", _, "->", to] => {
                let to = self.session(to);
                self.script.begin(to);
                self.table();
            }
            ["reassign", name] => {
                let (slice, from, to) = (
                    self.script.slice(KEY),
                    self.script.owner(KEY),
                    self.session(name),
                );
                let reply = self.script.plan(PlanStep::Reassign { slice, from, to });
                self.reply(reply.err().map_or(Reply::Done, Reply::Rejected));
            }
            ["ask-cancel"] => {
                let handoff = self.script.handoff(KEY).expect("open");
                let reply = self.script.ask_cancel(handoff.id);
                self.reply(reply);
            }
            ["expire", name, rest @ ..] => {
                let successors = rest
                    .iter()
                    .skip(1)
                    .map(|to| (KEY, self.session(to)))
                    .collect();
                let reply = self.script.expire(self.session(name), successors);
                self.reply(reply);
            }
            ["close", name] => {
                let reply = self.script.close(self.session(name));
                self.reply(reply);
            }
            ["want", mode] => {
                self.script.want(mode.parse().expect("strong or eventual"));
                self.table();
            }
            ["push", name] => {
                let update = self.script.view();
                self.give(name, |session| Input::Pushed(session, update));
            }
            ["renew", name] => self.renew(name),
            ["prepared", name] => self.of_handoff(name, Input::Prepared),
            ["drained", name] => self.of_handoff(name, |handoff| Input::Drained(handoff, DIGEST)),
            ["deliver"] => self.deliver(),
            ["told-closed", name] => {
                let session = self.session(name);
                self.give(name, |_| Input::Closed(session));
            }
            _ => panic!("no such command: {line}"),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        let names: Vec<String> = self.holders.keys().cloned().collect();
        for name in names {
            let serving = self.verdict(&name);
            self.say(format!("{name}: {serving}"));
        }
    }

    fn register(&mut self, name: &str) {
        let process = name.bytes().next().expect("a name") - b'A' + 1;
        let registered = self.script.register(process);
        self.names.insert(registered.session, name.to_string());
        self.say(format!(
            "table: {} registered, no view before {}",
            registered.session, registered.not_before
        ));
        let now = self.now();
        let holder = self
            .holders
            .entry(name.to_string())
            .or_insert_with(|| Holder::new(HolderConfig::default()));
        let out = script::begin(holder, &registered, now);
        self.actions(name, out);
    }

    fn give(&mut self, name: &str, input: impl FnOnce(SessionId) -> Input) {
        let (now, session) = (self.now(), self.session(name));
        let holder = self.holders.get_mut(name).expect("registered");
        let out = holder.handle(now, input(session));
        self.actions(name, out);
        let serving = self.verdict(name);
        self.say(format!("{name}: {serving}"));
    }

    fn of_handoff(&mut self, name: &str, input: impl FnOnce(leasehold_proto::HandoffId) -> Input) {
        let handoff = self.holders[name]
            .view()
            .and_then(|view| view.get(KEY).1.handoff)
            .expect("its view shows it");
        self.give(name, |_| input(handoff.id));
    }

    /// The next renewal that falls due, taken by the leader and answered at once.
    fn renew(&mut self, name: &str) {
        let now = self.now();
        let holder = self.holders.get_mut(name).expect("registered");
        let (t0, renew) = script::next_renewal(holder, now);
        self.now_ms = t0.as_nanos().div_ceil(1_000_000);
        let known = renew
            .known
            .map_or("no view".into(), |known| known.to_string());
        let words = word_names(&renew.words);
        let armed = renew
            .armed
            .map_or(String::new(), |arming| format!(", armed {arming}"));
        self.say(format!(
            "{name}: renews at {} ms, knows {known}, says {words}{armed}",
            self.now_ms
        ));
        for word in renew.words.clone() {
            let session = renew.session;
            let reply = match word {
                Word::Surrendered(id, _) => self.script.complete(id, EndWord::Surrendered(session)),
                Word::Accepted(id) => self.script.complete(id, EndWord::Accepted(session)),
                Word::Refused(id) => self.script.refused(id, session),
            };
            self.reply(reply);
        }
        if let Some(arming) = renew.armed {
            let reply = self.script.ack(renew.session, arming);
            self.reply(reply);
        }
        if !self
            .script
            .state()
            .live_sessions()
            .any(|session| session.id == renew.session)
        {
            return self.say(format!("table: {} is closed, no answer", renew.session));
        }
        let update = self.script.state().update_since(renew.known);
        self.give(name, |session| {
            Input::Renewed(Renewed {
                session,
                seq: renew.seq,
                ttl: TTL,
                update,
            })
        });
    }

    fn deliver(&mut self) {
        let Some(direct) = self.direct.pop_front() else {
            return self.say("nothing is under way".into());
        };
        match direct {
            Direct::Ready(ready) => {
                let to = self.name(ready.from);
                self.give(&to, |_| Input::Ready(ready));
            }
            Direct::Answer(session, answer) => {
                let to = self.name(session);
                self.give(&to, |_| Input::ReadyAnswered(answer));
            }
        }
    }

    fn actions(&mut self, name: &str, out: Output) {
        for action in out.actions {
            let line = match action {
                Action::Renew(renew) if renew.words.is_empty() => continue,
                Action::Renew(renew) => format!(
                    "says in a renewal, which is lost, {}",
                    word_names(&renew.words)
                ),
                Action::SayClosed(session) => format!("says that {session} is closed"),
                Action::Register => "wants a new session".into(),
                Action::Prepare {
                    handoff,
                    epoch,
                    from,
                    ..
                } => format!("prepares for {handoff} at {epoch} from {from}"),
                Action::SendReady(ready, _) => {
                    self.direct.push_back(Direct::Ready(ready));
                    format!("says ready for {} to {}", ready.handoff, ready.from)
                }
                Action::AnswerReady(ready, answer) => {
                    self.direct.push_back(Direct::Answer(ready.to, answer));
                    match answer {
                        ReadyAnswer::Surrendered(surrender) => {
                            format!("surrenders {} to {}", surrender.handoff, surrender.to)
                        }
                        ReadyAnswer::Refused(handoff) => {
                            format!("answers that it refuses {handoff}")
                        }
                        ReadyAnswer::NotMine(session) => {
                            format!("answers that {session} is not its own")
                        }
                    }
                }
                Action::Freeze { handoff, slice } => format!("freezes {slice} for {handoff}"),
            };
            self.say(format!("{name}: {line}"));
        }
    }

    fn verdict(&self, name: &str) -> String {
        let holder = &self.holders[name];
        match holder.check(KEY, self.now()) {
            Verdict::Owned(epoch) => {
                let far = Some(ClockTime::FAR);
                let until = holder.deadline().filter(|deadline| Some(*deadline) != far);
                let until = until.map_or("without a deadline".into(), |deadline| {
                    format!(
                        "until {} ms",
                        Duration::from_nanos(deadline.as_nanos()).as_millis()
                    )
                });
                format!("owns at {epoch} {until}")
            }
            Verdict::Fenced(epoch) => format!("serves fenced at {epoch}"),
            Verdict::Wait(handoff) => format!("requests wait for {handoff}"),
            Verdict::Lapsed => "its lease has run out".into(),
            Verdict::NotOwner => "does not own".into(),
        }
    }

    fn reply(&mut self, reply: Reply) {
        if let Reply::Rejected(rejection) = reply {
            self.say(format!("table: refused: {rejection}"));
        }
        self.table();
    }

    fn table(&mut self) {
        let (mode, generation) = (self.script.state().mode(), self.script.state().generation());
        let owner = self.script.owner(KEY).map_or("vacant".into(), |lease| {
            format!("{} at {}", lease.session, lease.epoch)
        });
        let handoff = self.script.handoff(KEY).map_or(String::new(), |open| {
            let asked = if open.ask_cancel {
                ", asked to cancel"
            } else {
                ""
            };
            let closed = if open.to_closed {
                ", its session closed"
            } else {
                ""
            };
            format!(
                ", {} to {} at {}{asked}{closed}",
                open.id, open.to, open.epoch
            )
        });
        let ghosts =
            self.script.state().sessions().count() - self.script.state().live_sessions().count();
        let ghosts = if ghosts > 0 {
            format!(", {ghosts} ghost")
        } else {
            String::new()
        };
        let mode = if mode == Mode::Strong {
            String::new()
        } else {
            format!(" ({mode}{ghosts})")
        };
        self.say(format!("table {generation}{mode}: {owner}{handoff}"));
    }
}

/// Runs the commands of a script and gives it back with the outputs that they print now.
fn played(text: &str) -> String {
    let mut result = String::new();
    let mut stage = None;
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let commands = block.split("----").next().unwrap_or_default().trim_end();
        writeln!(result, "{commands}").expect("a string");
        let lines = commands.lines().filter(|line| !line.starts_with('#'));
        let mut printed = false;
        for line in lines {
            match line.strip_prefix("target ") {
                Some(mode) => stage = Some(Stage::new(mode.parse().expect("strong or eventual"))),
                None => stage
                    .as_mut()
                    .expect("a script begins with its target")
                    .run(line),
            }
            printed = true;
        }
        if printed {
            let out = stage
                .as_mut()
                .map(|stage| std::mem::take(&mut stage.out))
                .unwrap_or_default();
            write!(result, "----\n{out}").expect("a string");
        }
        result.push('\n');
    }
    result.trim_end().to_string() + "\n"
}

#[test]
fn the_machines_say_what_the_golden_scripts_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(&directory).expect("the directory of the scripts");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "the scripts are missing");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let now = played(&text);
        if std::env::var_os("LEASEHOLD_REGENERATE").is_some() {
            std::fs::write(&path, now).expect("writable");
        } else {
            assert!(
                text == now,
                "{} prints something else now:\n{now}",
                path.display()
            );
        }
    }
}
