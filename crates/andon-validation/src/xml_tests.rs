//! Where tags, texts and their limits meet the edges of the buffer.

use super::*;

/// A token that outlives the next one.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Start(String, Vec<(String, String)>, bool),
    End(String),
    Text(String),
}

fn owned(token: Token<'_>) -> Owned {
    match token {
        Token::Start(tag) => {
            let attributes = tag.attributes().map(|(key, value)| (key.to_owned(), value.to_owned()));
            Owned::Start(tag.name().to_owned(), attributes.collect(), tag.empty)
        }
        Token::End(name) => Owned::End(name.to_owned()),
        Token::Text(text) => Owned::Text(text.to_owned()),
    }
}

fn tokens(text: &[u8]) -> (Vec<Owned>, bool) {
    // A tiny buffer puts every boundary inside a token.
    let mut tokens = Tokens::new(io::BufReader::with_capacity(3, text), 100, 100);
    let mut all = Vec::new();
    while let Some(token) = tokens.next(true) {
        all.push(owned(token));
    }
    (all, tokens.truncated)
}

fn texts(text: &[u8]) -> Vec<String> {
    let text_of = |token| if let Owned::Text(text) = token { Some(text) } else { None };
    tokens(text).0.into_iter().filter_map(text_of).collect()
}

#[test]
fn tags_texts_and_cdata_come_in_order() {
    let (all, truncated) =
        tokens(b"<?xml v?><!-- > --><a:b x='1' y=\"&lt;2&gt;\"/><c>q&amp;r<![CDATA[<d>]] >]]></c>");
    let attributes = vec![("x".into(), "1".into()), ("y".into(), "<2>".into())];
    assert_eq!(all[0], Owned::Start("b".into(), attributes, true));
    assert_eq!(all[1], Owned::Start("c".into(), vec![], false));
    assert_eq!(all[2..4], [Owned::Text("q&r".into()), Owned::Text("<d>]] >".into())]);
    assert_eq!(all[4..], [Owned::End("c".into())]);
    assert!(!truncated);
}

#[test]
fn a_document_type_declares_nothing_here() {
    let bomb = br#"<!DOCTYPE x [<!ENTITY a "]>&b;"><!ENTITY f SYSTEM "file:///etc/passwd">]><t>&a;&f;</t>"#;
    assert_eq!(texts(bomb), ["&a;&f;"]);
}

#[test]
fn a_long_text_is_cut_and_foreign_bytes_are_replaced() {
    let long = [b"<t>".as_slice(), &[b'x'; 5000], b"</t><t>\xff\x01</t>"].concat();
    assert_eq!(texts(&long), ["x".repeat(100), "\u{fffd}\u{1}".to_owned()]);
}

#[test]
fn a_tag_reads_the_same_whether_or_not_it_lies_whole_in_the_buffer() {
    for text in [
        "<a/>",
        "<a b='1'/>",
        "<a b='1' c=\"2\">",
        "<x:a y:b='>'/>",
        "<a b = '1' >",
        "<a b>",
        "<a b='1'c='2'>",
        "<a 'b'>",
        "<a/ b='1'>",
        "<a b=1>",
        "<a b='\n&#10;&amp;x'>",
        "<a\tb='1'\n/>",
        "<a b='ä'>",
        "<a=''>",
        "<a b='1' / >",
        "<a =''>",
        "<a \"b='1'>",
    ] {
        let read = |size| {
            let mut tokens = Tokens::new(io::BufReader::with_capacity(size, text.as_bytes()), 100, 100);
            (tokens.next(true).map(owned), tokens.truncated)
        };
        assert_eq!(read(1), read(1000), "{text}");
    }
}

#[test]
fn the_end_inside_markup_is_seen() {
    for text in ["<a", "<a b='", "<a><![CDATA[x", "<!-- x", "</a", "<", "<!DOCTYPE"] {
        assert!(tokens(text.as_bytes()).1, "{text}");
    }
}
