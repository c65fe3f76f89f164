use super::*;
use crate::testing::{Folder, text, words, yes};
use crate::{grammar, plan};

fn lines() -> Shape {
    Shape { kind: Kind::Line, names: Vec::new() }
}

fn found(name: &str, content: &[u8], shape: &Shape) -> Result<Found, String> {
    let folder = Folder::new();
    let path = folder.path(name);
    std::fs::write(&path, content).expect("a new file");
    let format = if name.ends_with("csv") { Format::Csv } else { Format::Jsonl };
    let file = File::open(&path).expect("the file");
    read(&file, format, shape, "out", &yes()).map_err(|stop| stop.err)
}

#[test]
fn each_done_row_is_used_once() {
    let mut done = found(
        "o.csv",
        b"input,result,error\na,1,\nb,,ValueError: no\na,1,\n\"c\n\"\"d\",2,\n",
        &lines(),
    )
    .expect("a file of ours")
    .done;
    assert!(done.take("\"a\"") && done.take("\"a\"") && !done.take("\"a\""));
    assert!(!done.take("\"b\""), "a failed input is not done");
    assert!(done.take("\"c\\n\\\"d\"") && done.is_empty());
}

/// Wherever a kill cuts the file, what is found is the rows before the cut, whole.
#[test]
fn every_cut_of_a_file_leaves_its_whole_rows() {
    let csv = [
        "input,result,error\n",
        "plain,1,\n",
        "\"a,b\nc\",\"x\"\"y\n\",\n",
        "\"é\",,\"E: \"\"q\"\"\n2\"\n",
        "last,2,\n",
    ];
    let jsonl =
        ["{\"input\":\"a\\n\",\"result\":1}\n", "{\"input\":\"é\",\"error\":{\"type\":\"E\"}}\n"];
    for (name, rows) in [("o.csv", &csv[..]), ("o.jsonl", &jsonl)] {
        let whole = rows.concat();
        let ends: Vec<usize> = rows
            .iter()
            .scan(0, |end, row| {
                *end += row.len();
                Some(*end)
            })
            .collect();
        for cut in 0..=whole.len() {
            let expected = ends.iter().rfind(|end| **end <= cut).copied().unwrap_or(0);
            let found = found(name, &whole.as_bytes()[..cut], &lines())
                .unwrap_or_else(|error| panic!("{name} cut at {cut}: {error}"));
            assert_eq!(found.whole_bytes, expected as u64, "{name} cut at {cut}");
        }
    }
}

#[test]
fn start_cuts_the_torn_row_and_takes_out_failures() {
    let folder = Folder::new();
    for (name, before, after, done) in [
        ("o.csv", "input,result,error\na,1,\nb,,E\n\"c\n", "input,result,error\na,1,\n", "\"a\""),
        (
            "o.jsonl",
            "{\"input\":\"a\",\"result\":null}\n{\"input\":\"b\",\"error\":{}}\n{\"inp",
            "{\"input\":\"a\",\"result\":null}\n",
            "\"a\"",
        ),
    ] {
        let path = folder.file(name, before);
        let line = words([&"map", &"m:f", &"-o", &path, &"--resume"]);
        let options = grammar::parse(line).expect("a valid line");
        let mut plan = plan::plan(&options).expect("possible").expect("an output");
        let mut found = plan.read_done(&lines(), &yes()).expect("a file of ours");
        assert!(found.take(done) && found.is_empty());
        assert_eq!(text(&path), before, "nothing changes before the start");
        plan.start(lines()).expect("writable");
        assert_eq!(text(&path), after);
    }
}

#[test]
fn inputs_of_each_kind_are_matched_in_each_format() {
    let row = Shape { kind: Kind::Row, names: vec!["b".into(), "error".into()] };
    let object = Shape { kind: Kind::Object, names: Vec::new() };
    let key = "{\"b\":\"1\",\"error\":\"x\"}";
    for (name, content, shape) in [
        ("o.csv", "b,input.error,result,error\n1,x,r,\n", &row),
        ("o.jsonl", "{\"input\":{\"b\":\"1\",\"error\":\"x\"},\"result\":1}\n", &row),
        ("o.csv", "input,error\n\"{\"\"error\"\":\"\"x\"\",\"\"b\"\":\"\"1\"\"}\",\n", &object),
        ("o.jsonl", "{\"input\":{\"error\":\"x\", \"b\":\"1\"},\"result\":1}\n", &object),
    ] {
        let mut found = found(name, content.as_bytes(), shape).expect(content);
        assert!(found.done.take(key), "{content}");
    }
}

#[test]
fn a_file_of_something_else_is_refused_with_its_line() {
    let object = Shape { kind: Kind::Object, names: Vec::new() };
    for (name, content, shape, said) in [
        ("o.csv", "name,age\nx,1\n", &lines(), "line 1: its columns are not input, …, error"),
        ("o.csv", "input\nx\n", &lines(), "line 1: its columns"),
        ("o.csv", "input,error\na,\nb,c,\nd,\n", &lines(), "line 3: the row does not fit"),
        ("o.csv", "input,error\nx,\n", &object, "line 2: its input is not a JSON object"),
        ("o.jsonl", "{\"input\":\"a\"}\n{}\n", &lines(), "line 2: not a row"),
        ("o.jsonl", "{\"input\":{}}\n", &lines(), "line 1: its input is of another kind"),
    ] {
        let Err(error) = found(name, content.as_bytes(), shape) else { panic!("{content}") };
        assert!(error.contains(said), "{error}");
        assert_eq!(error.matches('\n').count(), 1, "{error}");
    }
}
