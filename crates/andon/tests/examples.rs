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

#[test]
fn a_pipeline_of_many_jobs_goes_as_the_readme_says() {
    let server = Server::fresh();
    let example = Example::open(&server, "pipeline");
    let [here, there, one_module] = example.blocks()[..] else { panic!("the page has other blocks") };
    let said = example.run(here);
    assert!(said.contains("● cart-c.utf-8 passed") && said.contains("● served passed"), "{said}");
    let said = example.run(there);
    let plans: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("plan ")).collect();
    assert_eq!(plans.len(), 2, "{said}");
    assert_eq!(plans[0], plans[1], "{said}");
    let said = example.run(one_module);
    assert!(said.contains("cart-c (commit): passed, replayed from run-1"), "{said}");
    assert!(said.contains("stock (commit): passed after"), "{said}");
    assert!(said.contains("words (commit): not needed: no file of docs/ changed"), "{said}");
}
