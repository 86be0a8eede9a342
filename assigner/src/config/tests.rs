//! What a user of the configuration relies on.

use proptest::prelude::*;

use super::*;

fn built(text: &str) -> Result<Config, String> {
    let mut layers = Layers::default();
    layers
        .text(text, "leasehold.toml")
        .map_err(|error| error.to_string())?;
    layers.build().map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    built(text).expect_err("must be refused")
}

#[test]
fn the_printed_default_reads_back_as_the_default() {
    assert_eq!(built(&print_default()).expect("reads"), Config::default());
    assert!(Config::default().check().is_ok());
}

#[test]
fn every_key_of_the_printed_default_can_be_uncommented() {
    let head = 5;
    let uncommented: String = print_default()
        .lines()
        .skip(head)
        .map(|line| match line.strip_prefix("# ") {
            Some(assignment)
                if assignment.contains(" = \"") && !assignment.contains(':')
                    || assignment.starts_with("advertise = ") =>
            {
                assignment.replace("assigner-1.example:7400", "127.0.0.1:7400") + "\n"
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let config = built(&uncommented).expect("reads");
    assert_eq!(config.ttl.min, Some(Duration::from_secs(2)));
    assert_eq!(config.timers.heartbeat, Some(Duration::from_millis(100)));
    assert_eq!(config.node.advertise.as_deref(), Some("127.0.0.1:7400"));
}

#[test]
fn an_unknown_key_is_named_with_the_one_meant() {
    assert_eq!(
        refused("[node]\nlistne = \"127.0.0.1:1\""),
        "unknown key node.listne (node.listne in leasehold.toml); did you mean node.listen?"
    );
    assert!(refused("data_dir = \"x\"").contains("did you mean node.data_dir?"));
    assert!(refused("zzzzzzzz = 1").contains("`leasehold config print-default` lists all keys"));
    assert!(refused("node = 3").starts_with("unknown key node "));
}

#[test]
fn a_wrong_value_is_named_with_its_place_and_what_would_be_right() {
    assert_eq!(
        refused("[timers]\nheartbeat = \"100\""),
        "timers.heartbeat in leasehold.toml: \"100\" is not a duration; write it with its unit, such as 3s or 500ms"
    );
    assert_eq!(
        refused("insecure = \"maybe\""),
        "insecure in leasehold.toml: \"maybe\" is not true or false"
    );
    assert_eq!(
        refused("members = [\"1\"]"),
        "members in leasehold.toml: \"1\" is not ID=HOST:PORT, such as 1=10.0.0.7:7400"
    );
    assert!(refused("members = [\"1=a:1\", \"1=b:1\"]").contains("names node 1 twice"));
    assert!(refused("members = [\"1=a:1\", \"2=a:1\"]").contains("names a:1 twice"));
    assert!(refused("[node]\nid = 0").contains("must not be 0"));
    assert!(refused("[log]\nlevel = \"=x=\"").contains("is not a level"));
    assert!(refused("cluster = [\"a\"]").contains("one value, not a list"));
    assert!(refused("cluster = 2026-01-01").contains("must be a text"));
    assert!(refused("a = 1\nb = = 2").starts_with("leasehold.toml, line 2: "));
}

#[test]
fn beyond_loopback_without_encryption_needs_a_word() {
    let open = "node.listen = \"10.0.0.7:7400\"";
    let why = refused(open);
    assert!(
        why.contains("node.listen = 10.0.0.7:7400") && why.contains("--insecure"),
        "{why}"
    );
    assert!(built(&format!("insecure = true\n{open}")).is_ok());
    assert!(refused("http.listen = \"0.0.0.0:7402\"").contains("http.listen = 0.0.0.0:7402"));
    let nowhere = refused("insecure = true\nnode.listen = \"0.0.0.0:7400\"");
    assert!(nowhere.contains("node.advertise"), "{nowhere}");
}

#[test]
fn a_ttl_that_cannot_outlive_a_leader_is_refused_with_the_least_that_can() {
    let why = refused("ttl.min = \"1s\"");
    assert!(
        why.contains("1680ms") && why.contains("timers.profile = \"fast\""),
        "{why}"
    );
    assert!(built("ttl.min = \"1s\"\ntimers.profile = \"fast\"").is_ok());
    assert!(built("ttl.min = \"1680ms\"").is_ok());
    assert!(refused("timers.election_max = \"200ms\"").contains("must rise in this order"));
    assert!(refused("ttl.min = \"1ms\"").contains("outside 200ms to 5m"));
}

#[test]
fn members_must_agree_with_the_node() {
    assert!(refused("members = [\"2=127.0.0.1:7410\"]").contains("does not list this node (1)"));
    assert!(
        refused("members = [\"1=127.0.0.1:7410\"]")
            .contains("make node.advertise and members agree")
    );
    let text = "members = [\"1=127.0.0.1:7400\", \"2=127.0.0.1:7410\"]";
    assert!(built(text).expect("good").begins_cluster());
    let second = format!("{text}\nnode.id = 2\nnode.listen = \"127.0.0.1:7410\"");
    assert!(!built(&second).expect("good").begins_cluster());
    assert!(!Config::default().begins_cluster());
}

#[test]
fn variables_that_are_no_keys_are_left_alone_and_unknown_ones_named() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut layers = Layers::default();
    let others = [
        variable("LEASEHOLD_ENDPOINTS", "x"),
        variable("HOME", "/"),
        variable("LEASEHOLD_NODE__ID", "4"),
    ];
    layers.environment(others.into_iter()).expect("known");
    assert_eq!(layers.build().expect("good").node.id, 4);
    let unknown = layers
        .environment([variable("LEASEHOLD_NODE__IDD", "4")].into_iter())
        .expect_err("unknown");
    assert_eq!(
        unknown.to_string(),
        "unknown key node.idd (the environment variable LEASEHOLD_NODE__IDD); did you mean node.id?"
    );
    layers
        .environment([variable("LEASEHOLD_NODE__ID", "x")].into_iter())
        .expect("a known key");
    let wrong = layers.build().expect_err("not a number").to_string();
    assert_eq!(
        wrong,
        "the environment variable LEASEHOLD_NODE__ID: \"x\" is not a number from 1 on"
    );
}

fn any_config() -> impl Strategy<Value = Config> {
    let name = "[a-z \"'\\\\#=é]{1,20}".prop_filter("trimmed", |name| name.trim() == name);
    let millis = |range| {
        proptest::option::of(proptest::strategy::Strategy::prop_map(
            range,
            Duration::from_millis,
        ))
    };
    (
        name,
        1..9u64,
        1024..60_000u16,
        any::<bool>(),
        millis(100..150u64),
        millis(400..500u64),
        millis(3_000..9_000u64).prop_filter("long", Option::is_some),
    )
        .prop_map(|(name, id, port, fast, heartbeat, election, ttl)| {
            let mut config = Config::default();
            config.cluster.clone_from(&name);
            config.node.data_dir = name.into();
            config.node.id = id;
            config.node.listen.set_port(port);
            config.members =
                BTreeMap::from([(id, config.advertise()), (id + 1, "b.example:1".into())]);
            config.timers.heartbeat = heartbeat;
            config.timers.election_max = election;
            config.ttl.min = ttl;
            if fast {
                config.timers.profile = Profile::Fast;
                config.log.format = LogFormat::Json;
            }
            config
        })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(config in any_config()) {
        prop_assert_eq!(built(&print_effective(&config)), Ok(config));
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".{0,200}", value in ".{0,40}") {
        let _ = built(&text);
        let _ = built(&format!("members = {value}\n[node]\nlisten = {value}"));
        for key in keys::KEYS {
            let mut layers = Layers::default();
            layers.flag("--set", key.path, value.clone()).expect("a known key");
            let _ = layers.build();
        }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults(
        file in proptest::option::of(2..100u64),
        variable in proptest::option::of(100..200u64),
        flag in proptest::option::of(200..300u64),
    ) {
        let mut layers = Layers::default();
        if let Some(id) = file {
            layers.text(&format!("node.id = {id}"), "f").expect("good");
        }
        if let Some(id) = variable {
            layers.environment([("LEASEHOLD_NODE__ID".to_owned(), id.to_string())].into_iter()).expect("good");
        }
        if let Some(id) = flag {
            layers.flag("--node-id", "node.id", id.to_string()).expect("good");
        }
        let wins = flag.or(variable).or(file).unwrap_or(1);
        prop_assert_eq!(layers.build().expect("good").node.id, wins);
    }
}
