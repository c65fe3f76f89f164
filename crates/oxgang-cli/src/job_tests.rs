use super::*;
use crate::testing::{Folder, text, words, yes};

fn refused(line: Vec<OsString>) -> String {
    let Err(stop) = Job::new(line.clone(), yes()) else { panic!("{line:?} was taken") };
    assert_eq!((stop.code, stop.out.as_str()), (2, ""), "{line:?}");
    assert_eq!(stop.err.matches('\n').count(), 1, "{}", stop.err);
    stop.err
}

fn payload(text: &str) -> Payload {
    Payload::Cells(vec![("result".into(), text.into())])
}

#[test]
fn a_run_its_failures_and_its_resumption() {
    let folder = Folder::new();
    let inputs = folder.file("in.txt", "a\nb\na\nc\n");
    let out = folder.path("out.csv");
    let line = words([&"map", &"m:f", &"--from", &inputs, &"-o", &out, &"-q"]);

    let job = Job::new(line.clone(), yes()).expect("a valid command");
    job.prepare().expect("readable inputs");
    let mut given = Vec::new();
    while let Some((place, record)) = job.next_input().expect("good lines") {
        given.push((place, record.label()));
    }
    let labels = ["a", "b", "a", "c"].map(String::from);
    assert_eq!(given, (0..4).zip(labels).collect::<Vec<_>>());
    assert_eq!(folder.names(), ["in.txt"], "nothing is created before the start");
    job.start("f").expect("a writable output");
    assert_eq!(job.succeed(2, &payload("2")).expect("written"), Handed::Ok);
    job.fail(1, "ValueError", "no").expect("written");
    assert_eq!(job.succeed(0, &payload("0")).expect("written"), Handed::Ok);
    assert!(job.succeed(0, &payload("0")).is_err(), "each place has one outcome");
    // c has no outcome: the run was stopped.
    assert_eq!(job.finish(&Ending::Signal(2)), 130);
    drop(job);
    assert_eq!(text(&out), "input,result,error\na,2,\nb,,ValueError: no\na,0,\n");

    assert!(refused(line.clone()).contains("add --resume"));
    let mut line = line;
    line.push("--resume".into());
    let job = Job::new(line, yes()).expect("a valid command");
    job.prepare().expect("readable files");
    let mut left = Vec::new();
    while let Some((place, record)) = job.next_input().expect("good lines") {
        left.push((place, record.label()));
    }
    assert_eq!(left, [(0, "b".to_owned()), (1, "c".to_owned())]);
    job.start("f").expect("a writable output");
    job.succeed(0, &payload("B")).expect("written");
    job.succeed(1, &payload("C")).expect("written");
    assert_eq!(job.finish(&Ending::Done), 0);
    assert_eq!(text(&out), "input,result,error\na,2,\na,0,\nb,B,\nc,C,\n");
}

#[test]
fn what_cannot_work_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let full = folder.file("full.csv", "x\n");
    let out = folder.path("no/out.csv");
    let dir = folder.path("");
    let missing = folder.path("missing.txt");
    for (line, said) in [
        (words([&"map", &"m:f", &"a", &"--memory-limit=1G", &"--model=thread"]), "for processes"),
        (words([&"map", &"m:f", &"a", &"--resume"]), "name it with -o"),
        (words([&"map", &"m:f", &"a", &"--from", &full]), "not both"),
        (words([&"map", &"m:f", &"--from", &missing]), "No such file"),
        (words([&"map", &"m:f", &"--from", &dir]), "it is a directory"),
        (words([&"map", &"m:f", &"a", &"-o", &"results.txt"]), ".csv or .jsonl"),
        (words([&"map", &"m:f", &"a", &"-o", &out]), "cannot write"),
        (words([&"map", &"m:f", &"a", &"-o", &full]), "the file has content"),
    ] {
        let told = refused(line);
        assert!(told.contains(said), "{told}");
        assert_eq!(folder.names(), ["full.csv"]);
    }
}

#[test]
fn a_bad_line_is_found_before_the_start() {
    let folder = Folder::new();
    let inputs = folder.file("in.jsonl", "{\"a\":1}\nnonsense\n");
    let out = folder.path("out.jsonl");
    let line = words([&"map", &"m:f", &"--from", &inputs, &"-o", &out]);
    let stop = Job::new(line, yes()).expect("not read yet").prepare().expect_err("line 2 is bad");
    assert!(stop.err.contains("in.jsonl, line 2"), "{}", stop.err);
    assert_eq!(folder.names(), ["in.jsonl"]);
}
