//! What the server shows, and what it never does.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use tower::ServiceExt as _;

use crate::testing;

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, time, made) in [
        ("good", "20261120T100000", testing::valid(1, 500)),
        ("bad", "20261120T110000", testing::overlapping(2)),
    ] {
        let run = dir.path().join("store").join(name).join(time);
        made.write(&run);
        crate::write(&run).unwrap();
    }
    fs::write(dir.path().join("secret"), "do not show").unwrap();
    dir
}

fn router(dir: &Path) -> Router {
    super::router(&dir.join("store"), true).unwrap()
}

async fn get(router: &Router, path: &str) -> Response<Body> {
    let request = Request::get(path)
        .header("host", "localhost:1234")
        .body(Body::empty())
        .unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 64 << 20).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    let dir = store();
    let router = router(dir.path());
    let list = text(get(&router, "/").await).await;
    let (bad, good) = (
        list.find("/run/bad/").unwrap(),
        list.find("/run/good/").unwrap(),
    );
    assert!(bad < good);
    assert!(list.contains("2 of 2 runs"));
    assert!(list.contains("<b>NO</b>"));
    let list = text(get(&router, "/?verdict=valid&workload=register").await).await;
    assert!(list.contains("/run/good/") && !list.contains("/run/bad/"));
    let list = text(get(&router, "/?workload=%3Cscript%3E").await).await;
    assert!(list.contains("0 of 2 runs") && !list.contains("<script>\""));
}

#[tokio::test]
async fn pages_and_files_of_a_run_are_sent_as_what_they_are() {
    let dir = store();
    let router = router(dir.path());
    let run = "/run/good/20261120T100000";
    assert_eq!(
        get(&router, run).await.status(),
        StatusCode::PERMANENT_REDIRECT
    );
    for (file, kind) in [
        ("", "text/html; charset=utf-8"),
        ("timeline.html", "text/html; charset=utf-8"),
        ("rate.svg", "image/svg+xml"),
        ("history.jsonl", "text/plain; charset=utf-8"),
    ] {
        let response = get(&router, &format!("{run}/{file}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{file}");
        assert_eq!(response.headers()["content-type"], kind, "{file}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-"),
            "{policy}"
        );
        let name = if file.is_empty() { "index.html" } else { file };
        let on_disk = fs::read(dir.path().join("store/good/20261120T100000").join(name)).unwrap();
        assert_eq!(
            to_bytes(response.into_body(), 64 << 20).await.unwrap(),
            on_disk
        );
    }
}

#[tokio::test]
async fn a_run_under_way_shows_its_files() {
    let dir = store();
    let run = dir.path().join("store/good/20261120T120000");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("test.json"), "{}").unwrap();
    let page = get(&router(dir.path()), "/run/good/20261120T120000/").await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = text(page).await;
    assert!(page.contains("A run without a report") && page.contains("href=\"test.json\""));
}

#[tokio::test]
async fn nothing_outside_the_store_is_ever_sent() {
    let dir = store();
    let run = dir.path().join("store/good/20261120T100000");
    std::os::unix::fs::symlink(dir.path().join("secret"), run.join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("store/up")).unwrap();
    fs::write(run.join(".hidden"), "do not show").unwrap();
    let router = router(dir.path());
    for path in [
        "/run/good/20261120T100000/../../../secret",
        "/run/good/20261120T100000/..%2f..%2f..%2fsecret",
        "/run/good/20261120T100000/%2e%2e/%2e%2e/%2e%2e/secret",
        "/run/good/20261120T100000/%2fetc%2fpasswd",
        "/run/good/20261120T100000//etc/passwd",
        "/run/good/20261120T100000/./test.json",
        "/run/good/20261120T100000/link",
        "/run/good/20261120T100000/.hidden",
        "/run/good/20261120T100000/a%00b",
        "/run/..%2f..%2fetc/passwd/x",
        "/run/../secret/",
        "/run/up/store/good",
        "/run/up/secret/",
        "/tar/..%2f../x",
        "/tar/%2e%2e/%2e%2e",
        "/tar/up/store",
        "/tar/good/20261120T100000%2f..",
        "/run/good/20261120T100000/nothing.here",
    ] {
        let response = get(&router, path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(!text(response).await.contains("do not show"), "{path}");
    }
}

#[tokio::test]
async fn a_run_can_be_had_whole_and_links_in_it_stay_links() {
    let dir = store();
    let run = dir.path().join("store/good/20261120T100000");
    std::os::unix::fs::symlink(dir.path().join("secret"), run.join("link")).unwrap();
    let response = get(&router(dir.path()), "/tar/good/20261120T100000").await;
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    let bytes = to_bytes(response.into_body(), 64 << 20).await.unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        if path.ends_with("link") {
            assert!(entry.header().entry_type().is_symlink());
        }
        names.push(path);
    }
    for file in ["index.html", "history.jsonl", "link"] {
        assert!(
            names.contains(&format!("good-20261120T100000/{file}")),
            "{names:?}"
        );
    }
}

#[tokio::test]
async fn a_page_of_elsewhere_cannot_read_runs_through_a_name_that_points_here() {
    let dir = store();
    let router = router(dir.path());
    for (host, status) in [
        ("localhost", StatusCode::OK),
        ("127.0.0.1:8080", StatusCode::OK),
        ("[::1]:8080", StatusCode::OK),
        ("evil.example:8080", StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.1.evil.example", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = Request::get("/")
            .header("host", host)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            router.clone().oneshot(request).await.unwrap().status(),
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let dir = store();
    let router = router(dir.path());
    for method in ["POST", "PUT", "DELETE"] {
        let request = Request::builder()
            .method(method)
            .uri("/run/good/20261120T100000/test.json")
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        let status = router.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}
