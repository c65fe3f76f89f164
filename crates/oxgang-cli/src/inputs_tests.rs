use super::*;
use crate::testing::yes;
use std::io::Write;

/// A pipe that holds `bytes` and is closed: what a stream looks like.
fn stream(bytes: &[u8]) -> File {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    File::from(writer).write_all(bytes).expect("few bytes fit into a pipe");
    reader.into()
}

fn read(bytes: &[u8], kind: Kind) -> Result<Vec<Record>, String> {
    let told = |error| match error {
        InputError::Bad(message) => message,
        InputError::Refused => "refused".into(),
    };
    let mut inputs =
        Inputs::from_file(stream(bytes), kind, "in.txt".into(), &yes()).map_err(told)?;
    let mut records = Vec::new();
    while let Some(record) = inputs.next_record().map_err(told)? {
        records.push(record);
    }
    Ok(records)
}

fn keys(bytes: &[u8], kind: Kind) -> Vec<String> {
    read(bytes, kind).expect("good input").iter().map(Record::key).collect()
}

#[test]
fn lines_come_without_their_ends() {
    assert_eq!(keys(b"", Kind::Line), [""; 0]);
    assert_eq!(
        keys("\u{feff}a b\r\n\n  c \nd\u{e9}".as_bytes(), Kind::Line),
        ["\"a b\"", "\"  c \"", "\"d\u{e9}\""]
    );
}

#[test]
fn objects_keep_every_digit_and_forget_the_order() {
    let keys = keys(
        b"{\"b\": 1.10, \"a\": [18446744073709551617, {\"z\": 1, \"y\": null}]}\n\n\
          {\"a\":[18446744073709551617,{\"y\":null,\"z\":1}],\"b\":1.10}\n\
          {\"a\":[18446744073709551618,{\"y\":null,\"z\":1}],\"b\":1.10}\n",
        Kind::Object,
    );
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    assert_eq!(keys[0], "{\"a\":[18446744073709551617,{\"y\":null,\"z\":1}],\"b\":1.10}");
}

#[test]
fn rows_are_text_by_column() {
    let records = read(b"name,age\n\"O\"\"Hara, Pat\n2nd\",07\nbob,\n", Kind::Row).expect("rows");
    assert_eq!(records[0].json().to_string(), r#"{"name":"O\"Hara, Pat\n2nd","age":"07"}"#);
    assert_eq!(records[0].label(), r#"name=O"Hara, Pat\n2nd, age=07"#);
    assert_eq!(records[1].json().to_string(), r#"{"name":"bob","age":""}"#);
    assert_eq!(keys(b"name,age\n", Kind::Row), [""; 0]);
    assert_eq!(keys(b"", Kind::Row), [""; 0]);
}

#[test]
fn errors_name_the_file_and_the_line() {
    for (bytes, kind, said) in [
        (&b"a\n\nb\xff\n"[..], Kind::Line, "in.txt, line 3: not UTF-8"),
        (
            b"{\"a\": 1}\n{\"a\": }\n",
            Kind::Object,
            "in.txt, line 2: not JSON (expected value, column 7)",
        ),
        (b"\n[1]\n", Kind::Object, "in.txt, line 2: an array; each line must be an object"),
        (b"a,b\n1,2\n\"x\ny\",2,3\n", Kind::Row, "in.txt, line 3: 3 fields where the header has 2"),
        (b"a,b\n1,\xff\n", Kind::Row, "in.txt, line 2: not UTF-8"),
        (b"a,a\n", Kind::Row, "in.txt, line 1: two columns are named a"),
        (b"a,\n", Kind::Row, "in.txt, line 1: column 2 has no name"),
    ] {
        let message = read(bytes, kind).expect_err(said);
        assert!(message.contains(said), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_wait_for_input_is_ended_by_the_check() {
    for kind in [Kind::Line, Kind::Object] {
        let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
        let no: Check = Arc::new(|| Err(Refused));
        let mut inputs =
            Inputs::from_file(reader.into(), kind, "in".into(), &no).expect("nothing read yet");
        assert!(matches!(inputs.next_record(), Err(InputError::Refused)));
    }
    let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
    let no: Check = Arc::new(|| Err(Refused));
    let refused = Inputs::from_file(reader.into(), Kind::Row, "in".into(), &no);
    assert!(matches!(refused, Err(InputError::Refused)));
}

#[test]
fn long_labels_are_cut_between_letters() {
    let label = Record::Line("\u{e9}".repeat(500)).label();
    assert_eq!(label.chars().count(), 201);
    assert!(label.ends_with('…'));
}
