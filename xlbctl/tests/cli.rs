// SPDX-License-Identifier: GPL-2.0
//! The command as people run it: messages and exit codes, without a kernel.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shop.yaml");

fn xlbctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xlbctl"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("xlbctl runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of its own for each test.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).expect("the folder is writable");
    path
}

fn validate(name: &str, content: &[u8]) -> Output {
    let path = file(name, content);
    xlbctl(&["validate", "-f", path.to_str().expect("UTF-8")])
}

/// Asserts exit code 2 and a message with this part.
fn refused(output: &Output, part: &str) {
    let said = stderr(output);
    assert_eq!(code(output), 2, "{part}: {said}");
    assert!(said.contains(part), "{part}: {said}");
}

#[test]
fn the_example_is_valid() {
    let output = xlbctl(&["validate", "-f", SHOP]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("valid: 1 services, 2 routes, 2 clusters, 3 endpoints"));
}

#[test]
fn standard_input_is_a_file() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xlbctl"))
        .args(["validate", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xlbctl runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"version: 3\n").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).starts_with("standard input:1:10: version: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_cannot_be_read() {
    let cases: [(&str, Vec<u8>, &str, usize); 5] = [
        ("empty.yaml", Vec::new(), "is empty", 1),
        ("comment.yaml", b"# nothing here\n".to_vec(), "is empty", 1),
        (
            "binary.yaml",
            vec![0xff, 0xfe, 0x00, 0x80],
            "is UTF-16, as its byte-order mark says",
            1,
        ),
        ("latin.yaml", vec![0xe4, 0x80], "is not UTF-8 text", 1),
        (
            "broken.yaml",
            b"version: 1\nservices: [\n".to_vec(),
            "broken.yaml:3:1: ",
            1,
        ),
    ];
    for (name, content, part, lines) in cases {
        let output = validate(name, &content);
        refused(&output, part);
        assert_eq!(
            stderr(&output).lines().count(),
            lines,
            "{name}: {}",
            stderr(&output)
        );
    }
    let output = xlbctl(&["validate", "-f", "/does/not/exist.yaml"]);
    refused(&output, "/does/not/exist.yaml: No such file");
    let output = xlbctl(&["validate", "-f", "/"]);
    refused(&output, "is a directory");
}

#[test]
fn a_file_of_100_megabytes_is_refused_at_once() {
    let path = file("large.yaml", b"");
    // Sparse: it takes no room.
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(100 << 20))
        .expect("the file grows");
    let output = xlbctl(&["validate", "-f", path.to_str().expect("UTF-8")]);
    fs::remove_file(&path).expect("it was there");
    refused(&output, "larger than 32 MiB");
}

#[test]
fn an_endless_file_is_refused() {
    let output = xlbctl(&["validate", "-f", "/dev/zero"]);
    refused(&output, "larger than 32 MiB");
}

#[test]
fn deep_nesting_is_refused() {
    let mut text = "version: 1\nservices: ".to_owned();
    text.push_str(&"[".repeat(100_000));
    let output = validate("deep.yaml", text.as_bytes());
    refused(&output, "deep.yaml:2:1011: more than 1000 brackets");
}

#[test]
fn bad_usage() {
    for args in [
        &["apply"][..],
        &["validate"],
        &["delete"],
        &["delete", "--all", "-f", "x"],
        &["get", "nothing"],
        &["frobnicate"],
        &["status", "-o", "xml"],
        &["apply", "-f", SHOP, "--timeout", "5"],
        &[],
    ] {
        let output = xlbctl(args);
        assert_eq!(code(&output), 2, "{args:?}");
        let text = stderr(&output);
        assert!(
            text.contains("Usage") || text.contains("--help"),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(code(&xlbctl(&["--help"])), 0);
    assert_eq!(code(&xlbctl(&["--version"])), 0);
}

#[test]
fn a_bad_file_is_told_before_a_bad_machine() {
    let path = file("bad.yaml", b"version: 1\nservices: 5\n");
    let output = xlbctl(&["apply", "-f", path.to_str().expect("UTF-8")]);
    refused(&output, "bad.yaml:2:11: services: expected a list");
}

#[test]
fn a_dry_run_without_the_module_shows_what_would_be_added() {
    let output = xlbctl(&["apply", "--dry-run", "-o", "json", "-f", SHOP]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["services"]["added"][0], "shop");
    assert_eq!(report["dry_run"], true);
}

#[test]
fn without_the_module_there_is_one_clear_message() {
    if std::path::Path::new("/sys/module/xlb").exists() {
        return;
    }
    for args in [
        &["apply", "-f", SHOP][..],
        &["load"],
        &["get", "services"],
        &["get", "sockets"],
        &["stats"],
        &["delete", "--all"],
    ] {
        let output = xlbctl(args);
        assert_eq!(code(&output), 1, "{args:?}");
        let text = stderr(&output);
        assert!(
            text.contains("is not loaded") || text.contains("no permission"),
            "{args:?}: {text}"
        );
    }
    let output = xlbctl(&["status"]);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).contains("NOT ACTIVE"));
    let output = xlbctl(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["active"], false);
    assert!(!status["problems"][0].as_str().unwrap_or("").is_empty());
}

#[test]
fn explain_says_why() {
    let explain = |args: &[&str]| {
        let output = xlbctl(&[&["explain", "-f", SHOP, "--service", "shop"], args].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output)
    };
    let text = explain(&[
        "GET",
        "http://a.shop.example:80/v2/x?q=1",
        "-H",
        "X-User: jason",
    ]);
    assert!(
        text.contains("virtual host: domain \"*.shop.example\""),
        "{text}"
    );
    assert!(
        text.contains("route canary (GET|HEAD prefix /v2 x-user=jason): serves"),
        "{text}"
    );
    let text = explain(&["GET", "/v2x"]);
    assert!(
        text.contains("no: path /v2x is not /v2 or below it"),
        "{text}"
    );
    let text = explain(&["POST", "/v2", "-H", "x-user: jason"]);
    assert!(text.contains("no: another method"), "{text}");
    let text = explain(&["GET", "/v2", "-H", "x-user: jasonx"]);
    assert!(
        text.contains("no: header x-user is not \"jason\""),
        "{text}"
    );
    let text = explain(&["GET", "/a/../%76%32", "-H", "x-user: jason"]);
    assert!(
        text.contains("path /v2\n") && text.contains("canary"),
        "{text}"
    );

    let output = xlbctl(&["explain", "-f", SHOP, "--service", "shpo", "GET", "/"]);
    refused(&output, "did you mean shop?");
}

/// One route for each kind of condition, and what is said of all of them.
#[test]
fn explain_says_why_of_every_condition() {
    let conditions = [
        ("path: {exact: /b}", "path /a/b is not /b"),
        ("path: {prefix: /b}", "path /a/b is not /b or below it"),
        (
            "path: {string_prefix: /ab}",
            "path /a/b does not begin with /ab",
        ),
        ("method: [POST]", "another method"),
        (
            "headers: [{name: x-a, exact: v}]",
            "header x-a is not \"v\"",
        ),
        (
            "headers: [{name: x-a, prefix: b}]",
            "header x-a does not begin with \"b\"",
        ),
        (
            "headers: [{name: x-a, suffix: a}]",
            "header x-a does not end with \"a\"",
        ),
        (
            "headers: [{name: x-a, contains: ba}]",
            "header x-a does not contain \"ba\"",
        ),
        (
            "headers: [{name: x-a, present: false}]",
            "header x-a is present",
        ),
        (
            "headers: [{name: x-b, present: true}]",
            "header x-b is absent",
        ),
        (
            "headers: [{name: x-b, contains: a}]",
            "header x-b is absent",
        ),
        (
            "query: [{name: p, exact: \"1\"}, {name: p, exact: \"2\"}]",
            "query parameter p is not \"2\"",
        ),
        ("query: [{name: q, exact: \"\"}]", "query parameter q is absent"),
        (
            "cookies: [{name: c, present: false}]",
            "cookie c is present",
        ),
        ("cookies: [{name: d, suffix: x}]", "cookie d is absent"),
        (
            "path: {string_prefix: /a}, headers: [{name: x-a, prefix: a}], cookies: [{name: c, exact: e}]",
            "cookie c is not \"e\"",
        ),
        ("percent: 0", "not in its 0 per cent"),
    ];
    let mut text =
        "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  virtual_hosts:\n  \
         - {domains: [x.example], routes: [{cluster: c}]}\n  \
         - domains: [other.example, \"*.example\"]\n    routes:\n"
            .to_owned();
    for (condition, _) in conditions {
        text += &format!("    - {{match: {{{condition}}}, cluster: c}}\n");
    }
    text += "    - {match: {percent: 1}, cluster: c}\n\
         clusters:\n- {name: c, endpoints: [\"127.0.0.1:1\"]}\n";
    let path = file("conditions.yaml", text.as_bytes());
    let path = path.to_str().expect("UTF-8");
    let args = ["explain", "-o", "json", "-f", path, "--service", "s", "GET"];
    let request = [
        "http://A.example/a/b?p=1&p=2",
        "-H",
        "X-A: a",
        "-H",
        "x-a: ab",
        "-H",
        "Cookie: b=1; c=d",
    ];
    let output = xlbctl(&[&args[..], &request].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["domain"], "*.example");
    for (n, (condition, why)) in conditions.iter().enumerate() {
        let refused = &answer["routes"][n]["refused"];
        assert_eq!(refused.as_str(), Some(*why), "{condition}");
    }
    let last = &answer["routes"][conditions.len()];
    assert!(last.is_object() && last["refused"].is_null(), "{last}");
    assert_eq!(answer["clusters"][0]["endpoints"][0], "127.0.0.1:1");

    // What is asked about is a request that XLB would take.
    for (url, part) in [
        ("/a/%", "path /a/%: malformed percent-encoding"),
        ("http://a b/", "host_byte"),
        ("http://me@a/", "host_byte"),
    ] {
        refused(&xlbctl(&[&args[..], &[url]].concat()), part);
    }
    let output = xlbctl(&[&args[..], &["http://a.net?x=://"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["host"], "a.net");
    assert_eq!(answer["path"], "/");
    assert_eq!(
        answer["reply"],
        "404 no_route: no virtual host for this host"
    );
}
