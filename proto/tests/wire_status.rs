//! Refusals and redirects survive the way through a gRPC status and its headers.

#![cfg(any(feature = "client", feature = "server"))]

#[path = "common/strategies.rs"]
mod strategies;

use leasehold_proto::limits;
use leasehold_proto::wire::status::{REDIRECT_KEY, Refusal};
use leasehold_proto::wire::{Redirect, UnavailableReason};
use proptest::prelude::*;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// As another process receives it.
fn through_headers(status: Status) -> Status {
    let mut headers = HeaderMap::new();
    status
        .add_header(&mut headers)
        .expect("a status fits headers");
    Status::from_header_map(&headers).expect("a status")
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let text = || strategies::text(limits::TEXT_BYTES);
    prop_oneof![
        prop::option::of(strategies::address()).prop_map(|leader| Refusal::NotLeader { leader }),
        text().prop_map(Refusal::Halted),
        Just(Refusal::UnknownTarget),
        Just(Refusal::UnknownSession),
        Just(Refusal::BadSecret),
        Just(Refusal::Superseded),
        Just(Refusal::Overload),
        text().prop_map(Refusal::TooLarge),
        text().prop_map(Refusal::Invalid),
        text().prop_map(Refusal::Conflict),
        text().prop_map(Refusal::Rejected),
        Just(Refusal::Indeterminate),
        text().prop_map(Refusal::Internal),
    ]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    use UnavailableReason as U;
    let reason = prop_oneof![
        Just(U::Lapsed),
        Just(U::HandingOver),
        Just(U::Starting),
        Just(U::Stopping),
        Just(U::Interrupted),
    ];
    prop_oneof![
        strategies::moved().prop_map(Redirect::Moved),
        prop::option::of(strategies::generation())
            .prop_map(|generation| Redirect::NotOwner { generation }),
        reason.prop_map(Redirect::Unavailable),
    ]
}

proptest! {
    #[test]
    fn refusals(refusal in refusal()) {
        let status = through_headers(Status::from(&refusal));
        prop_assert_eq!(Refusal::from_status(&status), Some(refusal));
        prop_assert!(Redirect::from_status(&status).is_none());
    }

    #[test]
    fn redirects(redirect in redirect()) {
        let status = through_headers(Status::from(&redirect));
        prop_assert_eq!(Redirect::from_status(&status), Some(Ok(redirect)));
        prop_assert_eq!(Refusal::from_status(&status), None);
    }

    #[test]
    fn rejections_become_refusals(rejection in strategies::rejection()) {
        let refusal = Refusal::from(&rejection);
        prop_assert!(Refusal::from_status(&through_headers(refusal.into())).is_some());
    }

    #[test]
    fn arbitrary_redirects_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        let mut status = Status::new(Code::FailedPrecondition, "");
        status.metadata_mut().insert_bin(REDIRECT_KEY, MetadataValue::from_bytes(&bytes));
        prop_assert!(Redirect::from_status(&through_headers(status)).is_some());
    }
}

#[test]
fn a_status_of_a_transport_is_no_refusal() {
    assert_eq!(
        Refusal::from_status(&Status::unavailable("connection refused")),
        None
    );
}

#[test]
fn a_redirect_beyond_its_bound_is_refused() {
    let mut status = Status::new(Code::FailedPrecondition, "");
    let bytes = vec![0; limits::REDIRECT_BYTES + 3];
    status
        .metadata_mut()
        .insert_bin(REDIRECT_KEY, MetadataValue::from_bytes(&bytes));
    assert!(Redirect::from_status(&status).is_some_and(|redirect| redirect.is_err()));
}
