use super::*;
use crate::grammar;
use crate::plan;
use crate::record::Kind;
use crate::resume::Shape;
use crate::testing::{Folder, text, words, yes};

fn lines() -> Shape {
    Shape { kind: Kind::Line, names: Vec::new() }
}

fn rows(names: &[&str]) -> Shape {
    Shape { kind: Kind::Row, names: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn table(path: &std::path::Path, shape: &Shape, resume: bool) -> Table {
    let mut line = words([&"map", &"m:f", &"-o", &path]);
    if resume {
        line.push("--resume".into());
    }
    let options = grammar::parse(line).expect("a valid line");
    let mut plan = plan::plan(&options).expect("a possible output").expect("an output");
    plan.read_done(shape, &yes()).expect("a file of ours");
    plan.start(shape.clone()).expect("a writable file")
}

fn cells(pairs: &[(&str, &str)]) -> Payload {
    Payload::Cells(pairs.iter().map(|(n, c)| ((*n).to_owned(), (*c).to_owned())).collect())
}

fn line(input: &str) -> Record {
    Record::Line(input.into())
}

#[test]
fn the_first_row_settles_the_header_and_later_columns_widen_it() {
    let folder = Folder::new();
    let path = folder.path("out.csv");
    let mut table = table(&path, &lines(), false);
    table.write_failure(&line("bad"), "OSError", "gone").expect("written");
    assert_eq!(text(&path), "input,error\nbad,OSError: gone\n");
    table.write_result(&line("a,1"), &cells(&[("x", "1"), ("y", "2\n3")])).expect("written");
    table.write_result(&line("q\"q"), &cells(&[("y", "4")])).expect("written");
    table.write_result(&line("z"), &cells(&[("z", "5"), ("x", "6")])).expect("written");
    assert_eq!(
        text(&path),
        "input,x,y,z,error\nbad,,,,OSError: gone\n\"a,1\",1,\"2\n3\",,\n\"q\"\"q\",,4,,\nz,6,,5,\n"
    );
    assert_eq!(folder.names(), ["out.csv"]);
}

#[test]
fn names_that_are_taken_step_aside() {
    let folder = Folder::new();
    let path = folder.path("out.csv");
    let shape = rows(&["name", "error"]);
    let mut table = table(&path, &shape, false);
    let names: std::sync::Arc<[String]> = shape.names.clone().into();
    let record = Record::Row(names, csv::StringRecord::from(vec!["n", "e"]));
    let result = cells(&[("name", "N"), ("error", "E"), ("result", "R")]);
    table.write_result(&record, &result).expect("written");
    assert_eq!(text(&path), "name,input.error,result.name,result.error,result,error\nn,e,N,E,R,\n");
}

#[test]
fn widening_has_an_end() {
    let folder = Folder::new();
    let path = folder.path("out.csv");
    let mut table = table(&path, &lines(), false);
    for count in 0..=WIDENINGS {
        let name = format!("c{count}");
        table.write_result(&line("x"), &cells(&[(&name, "1")])).expect("written");
    }
    let before = text(&path);
    let refused = table.write_result(&line("x"), &cells(&[("one more", "1")]));
    assert!(matches!(refused, Err(RowError::Shape(why)) if why.contains(".jsonl")));
    assert_eq!(text(&path), before);
}

#[test]
fn jsonl_rows_are_one_object_each() {
    let folder = Folder::new();
    let path = folder.path("out.jsonl");
    let mut table = table(&path, &lines(), false);
    let result = Payload::Text("{\"a\":1}".into());
    table.write_result(&line("tab\t\"é\"\n"), &result).expect("written");
    table.write_failure(&line("b"), "KeyError", "'k'").expect("written");
    assert_eq!(
        text(&path),
        "{\"input\":\"tab\\t\\\"é\\\"\\n\",\"result\":{\"a\":1}}\n\
         {\"input\":\"b\",\"error\":{\"type\":\"KeyError\",\"message\":\"'k'\"}}\n"
    );
}

#[test]
fn a_run_without_rows_leaves_a_header() {
    let folder = Folder::new();
    for (name, content) in [("out.csv", "input,error\n"), ("out.jsonl", "")] {
        let path = folder.path(name);
        table(&path, &lines(), false).finish().expect("written");
        assert_eq!(text(&path), content);
    }
}

#[test]
fn a_link_to_the_output_stays_a_link() {
    let folder = Folder::new();
    let path = folder.file("real.csv", "input,error\na,E\nb,E\n");
    let link = folder.path("link.csv");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    table(&link, &lines(), true);
    assert!(link.symlink_metadata().expect("the link").is_symlink());
    assert_eq!(text(&path), "input,error\n");
}

#[test]
fn what_a_full_disk_took_of_a_row_is_cut_off_again() {
    // /dev/full takes nothing at all; the error must come through as it is.
    let full = OpenOptions::new().read(true).append(true).open("/dev/full").expect("/dev/full");
    let columns = vec!["input".to_owned()];
    let mut table = Table::new("/dev/full".into(), full, Format::Csv, columns, Vec::new());
    let refused = table.write_result(&line("x"), &cells(&[]));
    assert!(matches!(refused, Err(RowError::Io(error))
        if error.kind() == io::ErrorKind::StorageFull));
}
