//! The list of all keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use leasehold_assigner::planner::DrainOrder;
use leasehold_proto::{PodAddress, limits};

use super::units::{clip, parse_duration, show_duration};
use super::{Config, LogFormat, Profile};

/// A value as a layer gives it: a word, or several (a list in the file, separated by commas
/// elsewhere).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    One(String),
    Many(Vec<String>),
}

/// One key.
pub(super) struct Key {
    /// Its path in the file, with dots.
    pub path: &'static str,
    /// What it means; lines of the printed default.
    pub doc: &'static str,
    /// Reads a value into the configuration.
    pub set: fn(&mut Config, &Given) -> Result<(), String>,
    /// The value as TOML; none when it is not set.
    pub show: fn(&Config) -> Option<String>,
    /// A value to show where none is set, as TOML.
    pub example: &'static str,
}

impl Given {
    fn one(&self) -> Result<&str, String> {
        match self {
            Given::One(text) => Ok(text.trim()),
            Given::Many(_) => Err("is one value, not a list".into()),
        }
    }

    fn parse<T: FromStr>(&self, wanted: &str) -> Result<T, String> {
        let text = self.one()?;
        text.parse()
            .map_err(|_| format!("{:?} is not {wanted}", clip(text)))
    }

    fn duration(&self) -> Result<Duration, String> {
        self.one().and_then(parse_duration)
    }

    fn words(&self) -> Vec<&str> {
        match self {
            Given::One(text) => text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect(),
            Given::Many(words) => words.iter().map(String::as_str).collect(),
        }
    }
}

fn quoted(value: impl Display) -> Option<String> {
    Some(toml::Value::String(value.to_string()).to_string())
}

fn plain(value: impl Display) -> Option<String> {
    Some(value.to_string())
}

fn non_empty(given: &Given) -> Result<String, String> {
    match given.one()? {
        "" => Err("must not be empty".into()),
        text => Ok(text.to_owned()),
    }
}

fn node_id(given: &Given) -> Result<u64, String> {
    match given.parse("a number from 1 on")? {
        0 => Err("must not be 0".into()),
        id => Ok(id),
    }
}

fn address(text: &str) -> Result<String, String> {
    PodAddress::new(text)
        .map(|address| address.as_str().to_owned())
        .map_err(|_| {
            format!(
                "{:?} is not host:port, such as 10.0.0.7:7400 or assigner-1.example:7400",
                clip(text)
            )
        })
}

/// Reads `1=host:port`.
fn member(text: &str) -> Result<(u64, String), String> {
    let wrong = || {
        format!(
            "{:?} is not ID=HOST:PORT, such as 1=10.0.0.7:7400",
            clip(text)
        )
    };
    let (id, place) = text.split_once('=').ok_or_else(wrong)?;
    let id = id
        .trim()
        .parse()
        .ok()
        .filter(|id| *id != 0)
        .ok_or_else(wrong)?;
    Ok((id, address(place.trim())?))
}

fn members(given: &Given) -> Result<BTreeMap<u64, String>, String> {
    let mut members = BTreeMap::new();
    for word in given.words() {
        let (id, address) = member(word)?;
        if members.values().any(|known| *known == address) {
            return Err(format!("names {address} twice"));
        }
        if members.insert(id, address).is_some() {
            return Err(format!("names node {id} twice"));
        }
    }
    if members.len() > limits::MEMBERS {
        return Err(format!(
            "names {} nodes; at most {} are possible",
            members.len(),
            limits::MEMBERS
        ));
    }
    Ok(members)
}

fn ttl(given: &Given) -> Result<Duration, String> {
    let (ttl, bounds) = (given.duration()?, limits::TTL_MIN..=limits::TTL_MAX);
    if bounds.contains(&ttl) {
        return Ok(ttl);
    }
    let (low, high) = (
        show_duration(limits::TTL_MIN),
        show_duration(limits::TTL_MAX),
    );
    Err(format!("{} is outside {low} to {high}", show_duration(ttl)))
}

fn timer(given: &Given) -> Result<Duration, String> {
    let (timer, most) = (given.duration()?, Duration::from_secs(60));
    if timer.subsec_nanos() % 1_000_000 != 0 || timer.is_zero() || timer > most {
        return Err(format!(
            "{} is not a whole number of milliseconds up to 1m",
            show_duration(timer)
        ));
    }
    Ok(timer)
}

fn profile(given: &Given) -> Result<Profile, String> {
    match given.one()? {
        "default" => Ok(Profile::Default),
        "fast" => Ok(Profile::Fast),
        other => Err(format!("{:?} is not default or fast", clip(other))),
    }
}

fn drain_order(given: &Given) -> Result<DrainOrder, String> {
    match given.one()? {
        "hottest" => Ok(DrainOrder::Hottest),
        "largest" => Ok(DrainOrder::Largest),
        "key" => Ok(DrainOrder::Key),
        other => Err(format!("{:?} is not hottest, largest or key", clip(other))),
    }
}

fn open_per_pod(given: &Given) -> Result<usize, String> {
    let most = limits::OPEN_HANDOFFS_PER_TARGET;
    let wanted = format!("a number from 1 to {most}");
    match given.parse(&wanted)? {
        open if (1..=most).contains(&open) => Ok(open),
        open => Err(format!("{open} is not {wanted}")),
    }
}

fn log_level(given: &Given) -> Result<String, String> {
    let text = non_empty(given)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(format!(
            "{:?} is not a level (error, warn, info, debug, trace) or directives",
            clip(&text)
        )),
    }
}

fn log_format(given: &Given) -> Result<LogFormat, String> {
    match given.one()? {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{:?} is not auto, human or json", clip(other))),
    }
}

fn show_members(config: &Config) -> Option<String> {
    let words: Vec<String> = config
        .members
        .iter()
        .filter_map(|(id, address)| quoted(format!("{id}={address}")))
        .collect();
    Some(format!("[{}]", words.join(", ")))
}

/// All keys, those of one table together.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "cluster",
        doc: "Name of the cluster. Recorded in the data directory and checked in every message\nbetween Assigners: two clusters cannot mix by a wrong address.",
        set: |config, given| non_empty(given).map(|name| config.cluster = name),
        show: |config| quoted(&config.cluster),
        example: "",
    },
    Key {
        path: "members",
        doc: "The Assigners of a new cluster, each as \"ID=HOST:PORT\", the same list on every one.\nThe one with the lowest id begins the cluster as soon as all of them answer; on a data\ndirectory that is in use already the list changes nothing. Empty: this node waits until `leasehold member add`\nadds it, unless bootstrap is set.",
        set: |config, given| members(given).map(|members| config.members = members),
        show: show_members,
        example: "",
    },
    Key {
        path: "bootstrap",
        doc: "Begin a new cluster from this node, alone or with the members above.",
        set: |config, given| given.parse("true or false").map(|on| config.bootstrap = on),
        show: |config| plain(config.bootstrap),
        example: "",
    },
    Key {
        path: "insecure",
        doc: "Listen beyond loopback although nothing is encrypted or authenticated yet.",
        set: |config, given| given.parse("true or false").map(|on| config.insecure = on),
        show: |config| plain(config.insecure),
        example: "",
    },
    Key {
        path: "node.id",
        doc: "Number of this Assigner, from 1 on. A number whose data is lost is never used again:\nremove it and add a new one.",
        set: |config, given| node_id(given).map(|id| config.node.id = id),
        show: |config| plain(config.node.id),
        example: "",
    },
    Key {
        path: "node.listen",
        doc: "Where Slicelets, Clerks, operators and the other Assigners are served (gRPC).",
        set: |config, given| {
            given
                .parse("IP:PORT")
                .map(|address| config.node.listen = address)
        },
        show: |config| quoted(config.node.listen),
        example: "",
    },
    Key {
        path: "node.advertise",
        doc: "Where all of those reach this Assigner: HOST:PORT. Without it: node.listen.",
        set: |config, given| {
            given
                .one()
                .and_then(address)
                .map(|address| config.node.advertise = Some(address))
        },
        show: |config| config.node.advertise.as_ref().and_then(quoted),
        example: "\"assigner-1.example:7400\"",
    },
    Key {
        path: "node.data_dir",
        doc: "Where the log and the state are kept. Belongs to one node for ever; a directory of\nanother node or cluster is refused, not overwritten.",
        set: |config, given| non_empty(given).map(|path| config.node.data_dir = path.into()),
        show: |config| quoted(config.node.data_dir.display()),
        example: "",
    },
    Key {
        path: "http.listen",
        doc: "Where /metrics, /livez, /readyz and /version are served.",
        set: |config, given| {
            given
                .parse("IP:PORT")
                .map(|address| config.http.listen = address)
        },
        show: |config| quoted(config.http.listen),
        example: "",
    },
    Key {
        path: "timers.profile",
        doc: "How soon the loss of the leader is noticed. \"default\": heartbeat 100ms, election 300ms\nto 600ms. \"fast\", for a quiet network and short leases: 50ms, 150ms to 300ms.",
        set: |config, given| profile(given).map(|profile| config.timers.profile = profile),
        show: |config| match config.timers.profile {
            Profile::Default => quoted("default"),
            Profile::Fast => quoted("fast"),
        },
        example: "",
    },
    Key {
        path: "timers.heartbeat",
        doc: "Period of the leader's heartbeats. Without it: by profile.",
        set: |config, given| timer(given).map(|value| config.timers.heartbeat = Some(value)),
        show: |config| config.timers.heartbeat.map(show_duration).and_then(quoted),
        example: "\"100ms\"",
    },
    Key {
        path: "timers.election_min",
        doc: "A follower that hears nothing stands for election after a time between these two.\nWithout them: by profile.",
        set: |config, given| timer(given).map(|value| config.timers.election_min = Some(value)),
        show: |config| {
            config
                .timers
                .election_min
                .map(show_duration)
                .and_then(quoted)
        },
        example: "\"300ms\"",
    },
    Key {
        path: "timers.election_max",
        doc: "See election_min.",
        set: |config, given| timer(given).map(|value| config.timers.election_max = Some(value)),
        show: |config| {
            config
                .timers
                .election_max
                .map(show_duration)
                .and_then(quoted)
        },
        example: "\"600ms\"",
    },
    Key {
        path: "ttl.min",
        doc: "Shortest ttl that targets of this cluster are meant to have. A lease must outlive the loss\nof a leader: 5/6 of it must be at least 2 x election_max + 200ms, or the node does not\nstart. Without it: 2s, with the fast profile 1s.",
        set: |config, given| ttl(given).map(|value| config.ttl.min = Some(value)),
        show: |config| config.ttl.min.map(show_duration).and_then(quoted),
        example: "\"2s\"",
    },
    Key {
        path: "planner.settle_window",
        doc: "When at least half of a target's sessions lapse together, the network is more likely at\nfault than all of them: vacant slices wait so long before they are granted. Without it:\nthe target's ttl.",
        set: |config, given| {
            given
                .duration()
                .map(|value| config.planner.settle_window = Some(value))
        },
        show: |config| {
            config
                .planner
                .settle_window
                .map(show_duration)
                .and_then(quoted)
        },
        example: "\"3s\"",
    },
    Key {
        path: "planner.warm_successors",
        doc: "Begin to move slices away from a pod whose renewals are missing, so that its successors\nare warm when its lease has run out.",
        set: |config, given| {
            given
                .parse("true or false")
                .map(|on| config.planner.warm_successors = on)
        },
        show: |config| plain(config.planner.warm_successors),
        example: "",
    },
    Key {
        path: "planner.drain_order",
        doc: "Which slices of a draining pod go first: \"hottest\" (most load), \"largest\" (most state) or\n\"key\". A pod that is stopped before all have gone loses the state of the last ones.",
        set: |config, given| drain_order(given).map(|order| config.planner.drain_order = order),
        show: |config| match config.planner.drain_order {
            DrainOrder::Hottest => quoted("hottest"),
            DrainOrder::Largest => quoted("largest"),
            DrainOrder::Key => quoted("key"),
        },
        example: "",
    },
    Key {
        path: "planner.max_open_per_pod",
        doc: "Most handoffs from or to one pod that the planner keeps open, of those that the target\nallows (`leasehold target create --max-open-handoffs`). Fewer move one slice faster, more\nmove many small ones faster.",
        set: |config, given| open_per_pod(given).map(|open| config.planner.max_open_per_pod = open),
        show: |config| plain(config.planner.max_open_per_pod),
        example: "",
    },
    Key {
        path: "planner.restart_pause",
        doc: "Counts of slices are left uneven for so long after a pod was drained, and after every\npod that has come since: in a rolling restart the slices of the next pod go to the one that\ncame back last, and move once. Longer than the time from the return of a pod to the drain of\nthe next one. \"0s\": even out at once.",
        set: |config, given| {
            given
                .duration()
                .map(|value| config.planner.restart_pause = value)
        },
        show: |config| quoted(show_duration(config.planner.restart_pause)),
        example: "",
    },
    Key {
        path: "log.level",
        doc: "error, warn, info, debug, trace, or directives such as \"info,leasehold_assigner=debug\".",
        set: |config, given| log_level(given).map(|level| config.log.level = level),
        show: |config| quoted(&config.log.level),
        example: "",
    },
    Key {
        path: "log.format",
        doc: "\"human\", \"json\" (one object per line), or \"auto\": human on a terminal, json otherwise.",
        set: |config, given| log_format(given).map(|format| config.log.format = format),
        show: |config| match config.log.format {
            LogFormat::Auto => quoted("auto"),
            LogFormat::Human => quoted("human"),
            LogFormat::Json => quoted("json"),
        },
        example: "",
    },
];

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The key whose path is most like a wrong one, if any is much like it.
pub(super) fn most_like(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let alike = |key: &&Key| distance(key.path, path) <= 3 || last(key.path) == last(path);
    KEYS.iter()
        .filter(alike)
        .map(|key| key.path)
        .min_by_key(|known| distance(known, path))
}

/// How many letters must be put in, taken out or exchanged to get from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
