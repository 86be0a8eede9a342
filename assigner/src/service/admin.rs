//! What operators ask. Changes are made by the leader, with a line for the audit each; readings
//! are answered by every node from what it has applied.

mod change;
mod cluster;
mod read;
mod snapshot;

use std::sync::Arc;

use leasehold_proto::wire::pb::admin_server::Admin;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{WireError, pb};
use tonic::{Request, Response, Status};

use crate::shared::Shared;

/// See the file.
#[derive(Clone)]
pub(super) struct AdminService {
    shared: Arc<Shared>,
}

impl AdminService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn decoded<N: TryFrom<P, Error = WireError>, P>(request: Request<P>) -> Result<N, Refusal> {
    Ok(N::try_from(request.into_inner())?)
}

/// One line for the audit, before a change is tried. Secrets are no part of any such request.
fn audit(what: &'static str, of: &dyn std::fmt::Display, reason: Option<&str>) {
    tracing::info!(target: "leasehold::audit", change = what, of = %of, reason = reason.unwrap_or(""));
}

/// The service: each method decodes, answers, and encodes.
macro_rules! admin_service {
    ($($name:ident: $request:ident -> $reply:ident = $method:ident;)*) => {
        #[tonic::async_trait]
        impl Admin for AdminService {
            $(async fn $name(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                let reply = self.$method(decoded(request)?).await?;
                Ok(Response::new(reply))
            })*

            async fn list_targets(
                &self,
                _request: Request<pb::ListTargetsRequest>,
            ) -> Result<Response<pb::ListTargetsReply>, Status> {
                Ok(Response::new(self.targets()))
            }

            async fn cluster_status(
                &self,
                _request: Request<pb::ClusterStatusRequest>,
            ) -> Result<Response<pb::ClusterStatusReply>, Status> {
                Ok(Response::new(self.cluster()))
            }

            type SaveSnapshotStream = snapshot::Parts;

            async fn save_snapshot(
                &self,
                _request: Request<pb::SaveSnapshotRequest>,
            ) -> Result<Response<snapshot::Parts>, Status> {
                Ok(Response::new(self.save_parts().await?))
            }
        }
    };
}

admin_service! {
    create_target: CreateTargetRequest -> CreateTargetReply = create;
    update_target: UpdateTargetRequest -> UpdateTargetReply = update;
    delete_target: DeleteTargetRequest -> DeleteTargetReply = delete;
    get_target: GetTargetRequest -> GetTargetReply = get;
    list_slices: ListSlicesRequest -> ListSlicesReply = slices;
    list_sessions: ListSessionsRequest -> ListSessionsReply = sessions;
    list_handoffs: ListHandoffsRequest -> ListHandoffsReply = handoffs;
    lookup_key: LookupKeyRequest -> LookupKeyReply = lookup;
    forget_ghost: ForgetGhostRequest -> ForgetGhostReply = forget;
    move_slice: MoveSliceRequest -> MoveSliceReply = relocate;
    split_slice: SplitSliceRequest -> SplitSliceReply = split;
    merge_slices: MergeSlicesRequest -> MergeSlicesReply = merge;
    cancel_handoff: CancelHandoffRequest -> CancelHandoffReply = cancel;
    drain_session: DrainSessionRequest -> DrainSessionReply = drain;
    close_session: CloseSessionRequest -> CloseSessionReply = close;
    add_member: AddMemberRequest -> AddMemberReply = add;
    promote_member: PromoteMemberRequest -> PromoteMemberReply = promote;
    remove_member: RemoveMemberRequest -> RemoveMemberReply = remove;
    transfer_leader: TransferLeaderRequest -> TransferLeaderReply = transfer;
}
