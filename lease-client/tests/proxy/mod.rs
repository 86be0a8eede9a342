//! Connections that break: a TCP proxy in front of a pod.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module's description.
#[derive(Clone)]
pub struct Proxy {
    pub address: String,
    upstream: Arc<Mutex<Option<String>>>,
    /// Raised to end every connection.
    cut: watch::Sender<u64>,
    passed: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap().to_string(),
            upstream: Arc::default(),
            cut: watch::Sender::default(),
            passed: Arc::default(),
        };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serving.clone().carry(client));
            }
        });
        proxy
    }

    /// Lets connections through to `address` from now on; to nowhere if `None`.
    pub fn lead_to(&self, address: Option<&str>) {
        *self.upstream.lock().unwrap() = address.map(str::to_owned);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection and takes no more.
    pub fn stop(&self) {
        self.lead_to(None);
        self.cut();
    }

    /// Bytes that came from upstream so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    async fn carry(self, client: TcpStream) {
        let mut cut = self.cut.subscribe();
        let upstream = self.upstream.lock().unwrap().clone();
        let Some(upstream) = upstream else { return };
        let Ok(server) = TcpStream::connect(upstream).await else {
            return;
        };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        };
        let down = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                self.passed.fetch_add(count as u64, Ordering::Relaxed);
                if to_client.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            _ = cut.changed() => {}
        }
    }
}
