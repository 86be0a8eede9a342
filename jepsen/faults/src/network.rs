//! A network of hosts on one machine, and the faults of its links.

mod link;
mod links;
mod namespace;
mod proxy;
mod rootless;
mod switch;
mod wiring;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::{Arc, Once};

use anyhow::{Context, Result, anyhow, ensure};

pub use link::{LinkCount, LinkRule};
use links::Links;
use namespace::Namespace;
use proxy::Proxies;
use switch::Switch;

/// More hosts than this are refused.
const MOST_HOSTS: usize = 64;

/// How hosts are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network namespace per host. Needs root.
    Namespaces,
    /// The same inside a user namespace, where any user is root.
    Rootless,
    /// Loopback addresses behind proxies that break connections. Needs no privilege, but sees
    /// only programs that use libc, and can neither lose nor repeat a single packet.
    Proxy,
}

impl Kind {
    /// The best that this machine and user allow, and why.
    pub fn best() -> (Self, String) {
        if rootless::is_inside() {
            return (Self::Rootless, "already inside a user namespace".to_owned());
        }
        if let Err(error) = ip_is_installed() {
            return (Self::Proxy, format!("{error:#}"));
        }
        match Namespace::create() {
            Ok(_) => (Self::Namespaces, "may make network namespaces".to_owned()),
            Err(no_root) => match rootless::is_possible() {
                Ok(()) => (
                    Self::Rootless,
                    format!("{no_root:#}; a user namespace works"),
                ),
                Err(error) => (Self::Proxy, format!("{no_root:#}; {error:#}")),
            },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Rootless => "rootless",
            Self::Proxy => "proxy",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Namespaces, Self::Rootless, Self::Proxy]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| {
                anyhow!("a network is `namespaces`, `rootless` or `proxy`, not `{name}`")
            })
    }
}

fn ip_is_installed() -> Result<()> {
    Command::new("ip")
        .arg("-V")
        .output()
        .map(|_| ())
        .context("`ip` cannot be run; install iproute2 for namespaces")
}

/// Call first thing in `main` with the kind that will be created. For [`Kind::Rootless`] the
/// program runs itself again inside a user namespace: then this call does not return in the first
/// self, which ends with the exit code of the second.
///
/// # Errors
///
/// This user may not make a user namespace here; use [`Kind::Proxy`].
pub fn prepare(kind: Kind) -> Result<()> {
    if kind != Kind::Rootless || rootless::is_inside() {
        return Ok(());
    }
    match rootless::run_again()? {}
}

enum Backing {
    Switched {
        hosts: Vec<Namespace>,
        /// Held: the cables end in it.
        _switch_space: Namespace,
        _switch: Switch,
    },
    Proxied(Proxies),
}

/// Hosts with networks of their own, and the links between them. Dropping it ends the links; the
/// namespaces go when the processes inside them have gone.
pub struct Network {
    kind: Kind,
    names: Vec<String>,
    links: Arc<Links>,
    backing: Backing,
}

impl Network {
    /// Makes a network of these hosts, without faults. What is random in later faults follows
    /// from `seed` and the traffic.
    ///
    /// # Errors
    ///
    /// The kind cannot be had here: the message says what is missing. [`Kind::Rootless`] needs
    /// [`prepare`] before.
    pub fn create(kind: Kind, hosts: &[&str], seed: u64) -> Result<Self> {
        ensure!(!hosts.is_empty(), "a network needs a host");
        ensure!(hosts.len() <= MOST_HOSTS, "more than {MOST_HOSTS} hosts");
        let names: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
        for (index, name) in names.iter().enumerate() {
            ensure!(
                !names[..index].contains(name),
                "two hosts are called `{name}`"
            );
        }
        // What dead runs left behind goes first, once.
        static STALE: Once = Once::new();
        STALE.call_once(|| drop(crate::remove_stale()));
        let links = Arc::new(Links::new(names.len()));
        let backing = match kind {
            Kind::Proxy => Backing::Proxied(Proxies::start(names.len(), links.clone(), seed)?),
            Kind::Rootless if !rootless::is_inside() => {
                anyhow::bail!("call `prepare` at the start of the program")
            }
            Kind::Namespaces | Kind::Rootless => {
                ip_is_installed()?;
                let switch_space = Namespace::create()?;
                let hosts: Vec<Namespace> = names
                    .iter()
                    .map(|_| Namespace::create())
                    .collect::<Result<_>>()?;
                let ports = wiring::lay(&switch_space, &hosts)?;
                Backing::Switched {
                    _switch: Switch::start(ports, links.clone(), seed)?,
                    hosts,
                    _switch_space: switch_space,
                }
            }
        };
        Ok(Self {
            kind,
            names,
            links,
            backing,
        })
    }

    /// How hosts are kept apart.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The names of the hosts, in the order given.
    pub fn hosts(&self) -> &[String] {
        &self.names
    }

    fn index(&self, host: &str) -> Result<usize> {
        self.names
            .iter()
            .position(|name| name == host)
            .ok_or_else(|| anyhow!("no host is called `{host}`"))
    }

    /// The address that a host's own process listens on and that others reach it at.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn ip(&self, host: &str) -> Result<IpAddr> {
        let index = self.index(host)?;
        Ok(match &self.backing {
            Backing::Switched { .. } => wiring::address(index).into(),
            Backing::Proxied(proxies) => proxies.address(index).into(),
        })
    }

    /// A command that will run inside a host.
    ///
    /// # Errors
    ///
    /// There is no such host; behind proxies also: the preloaded library is missing.
    pub fn command(&self, host: &str, program: impl AsRef<Path>) -> Result<Command> {
        let index = self.index(host)?;
        let mut command = Command::new(program.as_ref());
        match &self.backing {
            Backing::Switched { hosts, .. } => {
                let fd = hosts[index].fd();
                // SAFETY: the closure makes one system call.
                unsafe { command.pre_exec(move || namespace::enter(fd)) };
            }
            Backing::Proxied(proxies) => proxies.place(index, &mut command)?,
        }
        Ok(command)
    }

    /// Moves the calling thread, and what it starts from now on, into a host for good. Sockets
    /// that it opened before stay where they were.
    ///
    /// Behind proxies a thread cannot be moved; there connections of this whole process are taken
    /// to come from every host that was ever entered: enter one host only.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn enter(&self, host: &str) -> Result<()> {
        let index = self.index(host)?;
        match &self.backing {
            Backing::Switched { hosts, .. } => hosts[index]
                .enter()
                .with_context(|| format!("enter `{host}`")),
            Backing::Proxied(proxies) => {
                proxies.enter(index);
                Ok(())
            }
        }
    }

    /// Where a person's `nsenter --net=` finds the host while this process lives; `None` behind
    /// proxies.
    pub fn namespace_path(&self, host: &str) -> Option<String> {
        match &self.backing {
            Backing::Switched { hosts, .. } => Some(hosts[self.index(host).ok()?].path()),
            Backing::Proxied(_) => None,
        }
    }

    /// Whether single packets can be lost, repeated and reordered here.
    pub fn has_packets(&self) -> bool {
        self.kind != Kind::Proxy
    }

    /// Sets how the link from one host to another treats packets from now on. Other links,
    /// the way back too, stay as they are.
    ///
    /// # Errors
    ///
    /// There is no such host, or the rule needs packets and there are none here
    /// ([`Network::has_packets`]).
    pub fn set_link(&self, from: &str, to: &str, rule: LinkRule) -> Result<()> {
        let place = self.links.place(self.index(from)?, self.index(to)?);
        let needs_packets = rule.loss > 0.0 || rule.duplicate > 0.0 || rule.reorder > 0.0;
        ensure!(
            self.has_packets() || !needs_packets,
            "loss, duplication and reordering need packets; behind proxies there are only streams"
        );
        self.links.rules()[place] = rule;
        Ok(())
    }

    /// How the link from one host to another treats packets now.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn link(&self, from: &str, to: &str) -> Result<LinkRule> {
        let place = self.links.place(self.index(from)?, self.index(to)?);
        Ok(self.links.rules()[place].clone())
    }

    /// All links pass everything again. What is still being delayed arrives.
    pub fn heal(&self) {
        self.links.rules().fill(LinkRule::default());
    }

    /// Whether all links pass everything.
    pub fn is_whole(&self) -> bool {
        self.links.rules().iter().all(LinkRule::is_clear)
    }

    /// Sends a packet over the link of each of these ordered pairs of hosts, to a port where
    /// nobody listens, so that the counters tell how the link treats packets now.
    ///
    /// # Errors
    ///
    /// There is no such host, or a packet cannot be sent. Behind proxies there are no packets.
    pub fn probe(&self, pairs: &[(String, String)]) -> Result<()> {
        const DISCARD: u16 = 9;
        let Backing::Switched { hosts, .. } = &self.backing else {
            anyhow::bail!("behind proxies there are no packets");
        };
        for (index, from) in self.names.iter().enumerate() {
            let mut targets = Vec::new();
            for (_, to) in pairs.iter().filter(|pair| pair.0 == *from) {
                targets.push(self.ip(to)?);
            }
            if targets.is_empty() {
                continue;
            }
            hosts[index].run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                for target in targets {
                    socket.send_to(b"probe", (target, DISCARD))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What went over the link from one host to another so far.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn count(&self, from: &str, to: &str) -> Result<LinkCount> {
        Ok(self.links.count(self.index(from)?, self.index(to)?))
    }
}

/// What a system call without a result said.
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
