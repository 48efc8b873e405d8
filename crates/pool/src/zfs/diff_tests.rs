use std::fs;

use super::*;

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for side in ["from", "to"] {
        fs::create_dir_all(root.path().join(side).join("d")).unwrap();
    }
    root
}

fn paths(changes: Changes) -> Vec<(String, ChangeKind)> {
    sorted(changes)
        .into_iter()
        .map(|change| (change.path, change.kind))
        .collect()
}

#[test]
fn lines_of_zfs_diff() {
    let root = tree();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    fs::create_dir_all(from.join("old/inner")).unwrap();
    fs::write(from.join("old/inner/f"), "").unwrap();
    fs::create_dir_all(to.join("new/inner")).unwrap();
    fs::write(to.join("new/inner/f"), "").unwrap();
    let text = "M\t/\t/pool/v/\nM\tF\t/pool/v/a\\0040b\n+\tF\t/pool/v/d/x\n-\tF\t/pool/v/gone\nR\t/\t/pool/v/old\t/pool/v/new\nM\tF\t/pool/v/q/<xattrdir>/user.x\nM\t/\t/pool/v/d\n";
    let changes = parse(text, Path::new("/pool/v"), &from, &to)
        .unwrap()
        .unwrap();
    use ChangeKind::{Added, Changed, Removed};
    let wanted = [
        ("a b", Changed),
        ("d/x", Added),
        ("gone", Removed),
        ("new", Added),
        ("new/inner", Added),
        ("new/inner/f", Added),
        ("old", Removed),
        ("old/inner", Removed),
        ("old/inner/f", Removed),
        ("q", Changed),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(p, k)| ((*p).to_owned(), *k)).collect();
    assert_eq!(paths(changes), wanted);
    // What is not understood is left to the walk.
    for odd in [
        "M\tF\t/elsewhere/x\n",
        "?\tF\t/pool/v/x\n",
        "junk\n",
        "R\tF\t/pool/v/x\n",
    ] {
        assert!(
            parse(odd, Path::new("/pool/v"), &from, &to)
                .unwrap()
                .is_none(),
            "{odd}"
        );
    }
}

#[test]
fn times_without_fractions_prove_nothing_when_recent() {
    let root = tree();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    // One file under both names has one number and one time: only what is doubtful is read.
    fs::write(from.join("f"), "same").unwrap();
    fs::hard_link(from.join("f"), to.join("f")).unwrap();
    fs::write(from.join("g"), "x").unwrap();
    fs::write(to.join("g"), "y").unwrap();
    let changes = trees(&from, &to, 0).unwrap();
    assert_eq!(paths(changes), [("g".to_owned(), ChangeKind::Changed)]);
}

#[test]
fn a_link_is_not_followed_and_a_replaced_path_is_changed() {
    let root = tree();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    std::os::unix::fs::symlink("/etc", to.join("etc")).unwrap();
    fs::create_dir(from.join("x")).unwrap();
    fs::write(from.join("x/inner"), "").unwrap();
    fs::write(to.join("x"), "").unwrap();
    let changes = trees(&from, &to, 0).unwrap();
    use ChangeKind::{Added, Changed, Removed};
    assert_eq!(
        paths(changes),
        [
            ("etc".to_owned(), Added),
            ("x".to_owned(), Changed),
            ("x/inner".to_owned(), Removed)
        ]
    );
}
