//! A switch in user space: one thread that takes each frame from its sender's cable, asks the
//! rule of that ordered pair of hosts what becomes of it, and puts it on the receiver's cable,
//! at once or later. It stands for the kernel's netem, which many kernels lack, and needs no
//! privilege beyond the namespaces themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::link::{Fate, Lane};
use super::links::Links;
use super::wiring;
use crate::true_now_ns;

/// More frames under way than this are lost.
const MOST_UNDER_WAY: usize = 65_536;
/// Frames taken from one cable before the others have their turn.
const TURN: usize = 64;
/// Longer than any frame.
const FRAME_BYTES: usize = 2_048;

/// A frame that arrives later; ordered by its time, then by when it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at_ns: u64,
    order: u64,
    to: usize,
    place: usize,
    frame: Vec<u8>,
}

struct Moving {
    ports: Vec<OwnedFd>,
    links: Arc<Links>,
    lanes: Vec<Lane>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
}

/// The running switch. Dropping it ends its thread.
pub(crate) struct Switch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts to move frames between these ports.
    pub(crate) fn start(ports: Vec<OwnedFd>, links: Arc<Links>, seed: u64) -> Result<Self> {
        let stop = Arc::new(event().context("make the switch's stop event")?);
        let lanes = (0..links.hosts() * links.hosts())
            .map(|place| Lane::new(seed.wrapping_add(place as u64)))
            .collect();
        let mut moving = Moving {
            ports,
            links,
            lanes,
            under_way: BinaryHeap::new(),
            order: 0,
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || moving.run(&stopped))
            .context("start the switch")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight valid bytes. Failing would mean that the event is already set.
        unsafe { libc::write(self.stop.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn event() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is new and owned from here.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

impl Moving {
    fn run(&mut self, stop: &OwnedFd) {
        // A wire does not slow down when processors are busy: first in line, as far as allowed.
        // And timers of the usual slack would be late by 50 µs.
        // SAFETY: both concern only this thread.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, -15);
            libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        }
        let mut polled: Vec<libc::pollfd> = self
            .ports
            .iter()
            .chain([stop])
            .map(|fd| libc::pollfd {
                fd: fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let mut buffer = [0u8; FRAME_BYTES];
        loop {
            self.deliver_due();
            wait(&mut polled, self.next_due_ns());
            if polled.last().is_some_and(|stop| stop.revents != 0) {
                return;
            }
            for (from, port) in polled[..self.ports.len()].iter().enumerate() {
                if port.revents != 0 {
                    self.take_turn(from, &mut buffer);
                }
            }
        }
    }

    /// How long until the next frame arrives; `None` if none is under way.
    fn next_due_ns(&self) -> Option<u64> {
        let Reverse(next) = self.under_way.peek()?;
        Some(next.at_ns.saturating_sub(true_now_ns()))
    }

    fn deliver_due(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let now_ns = true_now_ns();
        while self
            .under_way
            .peek()
            .is_some_and(|Reverse(next)| next.at_ns <= now_ns)
        {
            if let Some(Reverse(due)) = self.under_way.pop() {
                self.put(due.to, due.place, &due.frame);
            }
        }
    }

    fn take_turn(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..TURN {
            // SAFETY: the buffer is valid for its own length.
            let length = unsafe {
                libc::recv(
                    self.ports[from].as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            let Ok(length) = usize::try_from(length) else {
                return;
            };
            self.forward(from, &buffer[..length]);
        }
    }

    fn forward(&mut self, from: usize, frame: &[u8]) {
        let Some(to) = wiring::destination(frame).filter(|to| *to < self.ports.len()) else {
            return;
        };
        let place = self.links.place(from, to);
        let now_ns = true_now_ns();
        let fate = self.lanes[place].send(&self.links.rules()[place], now_ns, frame.len());
        let Fate::Arrives { at_ns, twice } = fate else {
            return self.links.dropped(place);
        };
        if twice {
            self.links.duplicated(place);
        }
        for _ in 0..1 + usize::from(twice) {
            if at_ns <= now_ns {
                self.put(to, place, frame);
            } else if self.under_way.len() < MOST_UNDER_WAY {
                self.order += 1;
                self.links.delayed(place);
                self.under_way.push(Reverse(UnderWay {
                    at_ns,
                    order: self.order,
                    to,
                    place,
                    frame: frame.to_vec(),
                }));
            } else {
                self.links.dropped(place);
            }
        }
    }

    fn put(&self, to: usize, place: usize, frame: &[u8]) {
        // SAFETY: the frame is valid for its own length.
        let sent = unsafe {
            libc::send(
                self.ports[to].as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if sent < 0 {
            self.links.dropped(place);
        } else {
            self.links.passed(place);
        }
    }
}

/// Waits until a descriptor is ready or the time has passed.
fn wait(polled: &mut [libc::pollfd], at_most_ns: Option<u64>) {
    let timeout = at_most_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), |time| &raw const *time);
    // SAFETY: the slice and the time outlive the call. Interrupted or failed: the caller looks at
    // `revents`, which are as they were or new, and finds nothing to read.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            timeout,
            std::ptr::null(),
        );
    }
}
