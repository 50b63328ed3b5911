//! A service without a library: says its version, remembers what it is told in a file, and ends when it is asked to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const VERSION: &str = "v1";

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let address = format!("{}:{}", variable("HOST"), variable("PORT"));
    let listener = TcpListener::bind(&address).expect("the address is free");
    println!("{VERSION} listens on {address}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(|| answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut request = [0; 2048];
    let length = stream.read(&mut request).ok()?;
    let text = String::from_utf8_lossy(&request[..length]);
    let path = text.split(' ').nth(1)?;
    let (status, body) = match path {
        "/" => ("200 OK", format!("{VERSION}\n")),
        "/healthz" => ("200 OK", "well\n".to_owned()),
        "/user" => ("200 OK", std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        "/note" => match std::fs::write("data/note", VERSION) {
            Ok(()) => ("200 OK", "noted\n".to_owned()),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        },
        _ => ("404 Not Found", "there is nothing\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).ok()
}
