//! The examples that need nothing but Python, brought up as their pages say.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use support::Server;
use support::example::Example;

#[test]
fn services_as_processes_go_as_the_readme_says() {
    let server = Server::fresh();
    let example = Example::open(&server, "process");
    let [put, look, compare, one_more, drill] = example.blocks()[..] else {
        panic!("the page has other blocks")
    };
    server.served(support::number(&example.run(put)));
    let said = example.run(look);
    assert!(said.contains("v1, visit 1"), "{said}");
    let said = example.run(compare);
    assert!(said.contains("one is enough to test"), "{said}");
    let said = example.run(one_more);
    assert!(said.contains("v1, visit 1") && said.contains("try-it is being destroyed"), "{said}");
    server.until("it is gone", "/environments", |view| !view["rows"].to_string().contains("try-it"));
    let said = example.run(drill);
    assert!(said.contains("2 environments, 5 instances"), "{said}");
}
