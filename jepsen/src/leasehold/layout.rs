//! Which processes run where, and with what configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::Options;
use crate::system::{Host, HostSpec, Launch};

/// Hosts of Assigners that may be members from the start.
pub const ASSIGNER: &str = "assigner";
/// Hosts of pods.
pub const POD: &str = "pod";
/// The host of the external store.
pub const SERVER: &str = "server";

const SERVICE_PORT: u16 = 7400;
const HTTP_PORT: u16 = 7402;
const POD_PORT: u16 = 7500;
const REGISTER_PORT: u16 = 7600;
/// Below it the Assigners need their fast timers.
const SLOW_TTL: Duration = Duration::from_secs(2);

/// Three places of the consensus library log an error for what is none: the end of an orderly stop,
/// when its store and its core are gone, and a request that is refused, which its caller is told.
/// Nothing else is left out.
const LOG_LEVEL: &str = "info,openraft::storage::callback=off,\
     openraft::core::heartbeat::worker=off,openraft::raft::api=off";

/// The hosts: `a1…` for Assigners, the founding ones first, `p1…` for pods, `s1` for the store.
pub fn hosts(options: &Options) -> Vec<HostSpec> {
    let some = |letter: &str, role: &str, count: usize| {
        let spec = |number| HostSpec {
            name: format!("{letter}{number}"),
            role: role.to_owned(),
        };
        (1..=count).map(spec).collect::<Vec<_>>()
    };
    let assigners = some("a", ASSIGNER, options.assigners + options.spares);
    let pods = some("p", POD, options.pods);
    [some("s", SERVER, 1), assigners, pods].concat()
}

/// The hosts of one role, in order.
pub fn of_role<'a>(all: &'a [Host], role: &'a str) -> impl Iterator<Item = &'a Host> {
    all.iter().filter(move |host| host.spec.role == role)
}

/// The Assigners, founding or not, by host and address.
pub fn assigners(all: &[Host]) -> Vec<(String, String)> {
    of_role(all, ASSIGNER)
        .map(|host| (host.spec.name.clone(), service_address(host)))
        .collect()
}

/// The number of an Assigner in its cluster: that in its host's name.
///
/// # Errors
/// The host is no Assigner's.
pub fn node_id(host: &str) -> anyhow::Result<u64> {
    host.strip_prefix('a')
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{host} is no Assigner"))
}

/// Where an Assigner serves.
pub fn service_address(host: &Host) -> String {
    SocketAddr::new(host.ip, SERVICE_PORT).to_string()
}

/// Where a pod serves.
pub fn pod_address(host: &Host) -> String {
    SocketAddr::new(host.ip, POD_PORT).to_string()
}

/// Where the external store serves.
///
/// # Errors
/// No host is the store's.
pub fn register_address(all: &[Host]) -> anyhow::Result<String> {
    let host = of_role(all, SERVER)
        .next()
        .context("no host has the store")?;
    Ok(SocketAddr::new(host.ip, REGISTER_PORT).to_string())
}

/// Where a pod's hold logs are.
pub fn hold_log(host: &Host) -> PathBuf {
    host.log_dir.join("holds")
}

/// Whether any incarnation of a pod has begun a hold log: each does so before it serves.
///
/// # Errors
///
/// The directory cannot be read.
pub fn has_hold_log(host: &Host) -> std::io::Result<bool> {
    let log = hold_log(host);
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}-");
    for entry in std::fs::read_dir(&host.log_dir)? {
        if entry?.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How to start the process of a host.
///
/// # Errors
/// Its configuration cannot be written, or its role is unknown.
pub fn launch(options: &Options, host: &Host, all: &[Host]) -> anyhow::Result<Launch> {
    let (program, args) = match host.spec.role.as_str() {
        ASSIGNER => (&options.leasehold, assigner(options, host, all)?),
        POD => (&options.harness, pod(options, host, all)?),
        SERVER => (&options.harness, server(host)),
        other => anyhow::bail!("{other} is no role of this system"),
    };
    Ok(Launch {
        host: host.spec.name.clone(),
        program: program.clone(),
        args,
        env: Vec::new(),
    })
}

fn assigner(options: &Options, host: &Host, all: &[Host]) -> anyhow::Result<Vec<String>> {
    let id = node_id(&host.spec.name)?;
    let founding =
        |host: &&Host| node_id(&host.spec.name).is_ok_and(|id| id <= options.assigners as u64);
    // A spare waits until it is added.
    let members: Vec<String> = match founding(&host) {
        false => Vec::new(),
        true => of_role(all, ASSIGNER)
            .filter(founding)
            .map(|host| {
                let id = node_id(&host.spec.name)?;
                Ok(format!("\"{id}={}\"", service_address(host)))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    let profile = if options.ttl < SLOW_TTL {
        "fast"
    } else {
        "default"
    };
    let text = format!(
        "cluster = \"jepsen\"\nmembers = [{}]\ninsecure = true\n\n[node]\nid = {id}\nlisten = \"{}\"\n\
         data_dir = \"{}\"\n\n[http]\nlisten = \"{}\"\n\n[timers]\nprofile = \"{profile}\"\n\n\
         [log]\nformat = \"human\"\nlevel = \"{LOG_LEVEL}\"\n",
        members.join(", "),
        service_address(host),
        host.data_dir.join("assigner").display(),
        SocketAddr::new(host.ip, HTTP_PORT),
    );
    let config = host.log_dir.join("assigner.toml");
    write_new(&config, &text)?;
    Ok(vec![
        "serve".into(),
        "--config".into(),
        config.display().to_string(),
    ])
}

/// A configuration is written once: a host whose disk is broken now can still be started again.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn pod(options: &Options, host: &Host, all: &[Host]) -> anyhow::Result<Vec<String>> {
    let assigners: Vec<String> = assigners(all).into_iter().map(|(_, at)| at).collect();
    let mut args = vec![
        "pod".into(),
        format!("--name={}", host.spec.name),
        format!("--assigner={}", assigners.join(",")),
        format!("--target={}", super::TARGET),
        format!("--listen={}", pod_address(host)),
        format!("--register={}", register_address(all)?),
        format!("--hold-log={}", hold_log(host).display()),
    ];
    if options.unfenced {
        args.push("--unfenced".into());
    }
    Ok(args)
}

fn server(host: &Host) -> Vec<String> {
    let listen = SocketAddr::new(host.ip, REGISTER_PORT);
    vec![
        "register".into(),
        format!("--listen={listen}"),
        format!("--journal={}", host.data_dir.join("journal").display()),
    ]
}
