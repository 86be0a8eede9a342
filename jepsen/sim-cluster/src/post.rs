//! Letters between pods and leaders, and between pods: datagrams of the simulated network that
//! carry a number, under which the letter itself lies here. What the network loses is never read.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use leasehold_proto::command::Registered;
use leasehold_proto::message::{Ready, ReadyAnswer, Renew, Renewed};
use leasehold_proto::{SessionId, Squid};
use parking_lot::Mutex;
use turmoil::net::UdpSocket;

/// Where letters arrive, on every machine.
pub(crate) const PORT: u16 = 7500;
/// Letters kept; older ones are lost for good.
const KEPT: usize = 4096;

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    /// Pod to leader: give me a session.
    Register(Squid),
    /// Leader to pod.
    Registered(u128, Registered),
    /// Pod to leader.
    Renew(Renew),
    /// Leader to pod.
    Renewed(Renewed),
    /// Leader to pod: that session is closed.
    Closed(SessionId),
    /// Pod to pod.
    Ready(Ready),
    /// Pod to pod.
    Answer(ReadyAnswer),
}

#[derive(Default)]
struct Inner {
    next: u64,
    letters: BTreeMap<u64, (String, Letter)>,
}

/// Where all letters of a world lie.
#[derive(Clone, Default)]
pub(crate) struct Post(Arc<Mutex<Inner>>);

/// One machine's end.
#[derive(Clone)]
pub(crate) struct Mailbox {
    post: Post,
    me: String,
    socket: Arc<UdpSocket>,
}

impl Post {
    /// Opens the mailbox of the machine `me`, on that machine.
    pub(crate) async fn open(&self, me: String) -> io::Result<Mailbox> {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", PORT)).await?);
        Ok(Mailbox {
            post: self.clone(),
            me,
            socket,
        })
    }

    fn put(&self, from: &str, letter: Letter) -> u64 {
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        inner.letters.insert(number, (from.to_owned(), letter));
        if inner.letters.len() > KEPT {
            inner.letters.pop_first();
        }
        number
    }
}

impl Mailbox {
    /// Sends; the network may lose it.
    pub(crate) async fn send(&self, to: &str, letter: Letter) {
        let number = self.post.put(&self.me, letter);
        // As the network of a datagram would: nobody is told.
        let _ = self.socket.send_to(&number.to_be_bytes(), (to, PORT)).await;
    }

    /// The next letter, and who wrote it.
    pub(crate) async fn receive(&self) -> io::Result<(String, Letter)> {
        loop {
            let mut bytes = [0; 8];
            self.socket.recv_from(&mut bytes).await?;
            let number = u64::from_be_bytes(bytes);
            let found = self.post.0.lock().letters.remove(&number);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
}
