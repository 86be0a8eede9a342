//! What each part of the system believes of the assignment.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::LeaseholdClient;
use super::outcome::out_of_time;
use crate::leasehold::TARGET;
use crate::leasehold::admin::Slices;
use crate::rpc::ServesRequest;
use crate::system::{Completion, Invocation};

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(50);

/// Who serves what, by first slice key.
type View = Vec<(String, String)>;

fn view_of(slices: &Slices) -> Option<View> {
    slices
        .slices
        .iter()
        .map(|info| {
            let owner = info
                .assigned
                .owner
                .filter(|_| info.assigned.handoff.is_none())?;
            let address = slices.address(owner.session)?;
            let first = format!("{:016x}", info.slice.first().as_u64());
            Some((first, address.as_str().to_owned()))
        })
        .collect()
}

fn seen(observer: String, view: Option<View>) -> Completion {
    let entry = |(first, at): (String, String)| json!([first, at]);
    let value = view.map(|view| view.into_iter().map(entry).collect::<Value>());
    Completion::Ok {
        value: value.unwrap_or_default(),
        node: Some(observer),
        epoch: None,
    }
}

impl LeaseholdClient {
    /// `view` of the observer that the invocation's value names: an Assigner's host, `clerk`, or
    /// `pods`, whose members are asked what they serve. Answered when it is complete: every slice
    /// owned, none on its way.
    pub(super) async fn view(&mut self, invocation: &Invocation) -> Completion {
        let observer = invocation.value.as_str().unwrap_or("clerk").to_owned();
        let looked = async {
            loop {
                match self.view_by(&observer).await {
                    Some(view) => return view,
                    None => sleep(AGAIN).await,
                }
            }
        };
        match timeout(invocation.deadline, looked).await {
            Ok(view) => seen(observer, Some(view)),
            Err(_) => out_of_time(false, invocation.deadline),
        }
    }

    /// `view` of the observer in `{"glance": OBSERVER}`: what it has at this moment; `null` if it
    /// has nothing complete, or gives no answer.
    pub(super) async fn glance(&mut self, observer: &str, invocation: &Invocation) -> Completion {
        let view = timeout(invocation.deadline, self.view_by(observer)).await;
        seen(observer.to_owned(), view.ok().flatten())
    }

    async fn view_by(&mut self, observer: &str) -> Option<View> {
        match observer {
            "clerk" => self.view_of_clerk().await,
            "pods" => self.view_of_pods().await,
            host => self.view_of_assigner(host).await,
        }
    }

    async fn slices_now(&self) -> Option<Slices> {
        self.admin.slices(TARGET).await.ok()
    }

    async fn view_of_assigner(&self, host: &str) -> Option<View> {
        let nodes = self.admin.nodes();
        let node = nodes.iter().find(|node| node.host == host)?;
        let one = [(node.host.clone(), node.address.clone())];
        let admin = crate::leasehold::admin::Admin::new(&one, Duration::ZERO).ok()?;
        view_of(&admin.slices(TARGET).await.ok()?)
    }

    /// Where this worker's Clerk would send a request for each slice.
    async fn view_of_clerk(&self) -> Option<View> {
        let slices = self.slices_now().await?;
        let route = |info: &leasehold_proto::wire::listing::SliceInfo| {
            let route = self.clerk.route_slice_key(info.slice.first())?;
            let first = format!("{:016x}", info.slice.first().as_u64());
            Some((first, route.address.as_str().to_owned()))
        };
        let view: Option<View> = slices.slices.iter().map(route).collect();
        // The slices that were asked for must be those of the map, and nothing on its way.
        view.filter(|_| view_of(&slices).is_some())
    }

    /// Which pod says that it serves each slice: one, not more.
    async fn view_of_pods(&mut self) -> Option<View> {
        let slices = self.slices_now().await?;
        let owned = view_of(&slices)?;
        let mut view = View::new();
        for info in &slices.slices {
            let mut serving = Vec::new();
            for (name, pod) in &mut self.pods {
                let request = ServesRequest {
                    slice_key: info.slice.first().as_u64(),
                };
                let reply = timeout(super::NOTICE, pod.serves(request)).await;
                if reply.ok()?.ok()?.into_inner().token.is_some() {
                    serving.push(name.clone());
                }
            }
            let [name] = serving.as_slice() else {
                return None;
            };
            let first = format!("{:016x}", info.slice.first().as_u64());
            let address = self.addresses.get(name)?.clone();
            view.push((first, address));
        }
        // As long as it differs the move is not over.
        (view == owned).then_some(view)
    }
}
