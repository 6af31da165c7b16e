//! Disks that refuse. Root may write anywhere and has no quota, so some of this is done by a child that is less.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use sink_lancedb::{Class, Dataset, DatasetOptions, Overwrite, VectorTable};

use crate::support::{Owned, contents, dataset, folder, rows, run, spec};

/// Names the folder to the child, which is the same test.
const CHILD: &str = "SINK_LANCEDB_TEST_CHILD";
const NOBODY: u32 = 65_534;

fn opened(uri: &str) -> Dataset {
    Dataset::open(DatasetOptions::new(uri)).expect("it is a folder")
}

/// Sets the rights of all that is in a folder, and of the folder.
fn set_modes(folder: &Path, directories: u32, files: u32) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_modes(&path, directories, files);
        } else {
            fs::set_permissions(&path, Permissions::from_mode(files)).expect("set");
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(directories)).expect("set");
}

/// Runs a test of this program again in a child.
fn run_child(mut command: Command, test: &str, folder: &Path) {
    let done = command.args(["--exact", test, "--nocapture"]).env(CHILD, folder).output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
}

#[test]
fn a_folder_that_this_user_may_not_write_is_named_with_what_to_do() {
    const THIS: &str = "disk::a_folder_that_this_user_may_not_write_is_named_with_what_to_do";
    let judge = |uri: &str| {
        run(async {
            let locked = opened(uri).lock().expect("the lock's own file may be written");
            let mut table = VectorTable::open(&locked, spec("docs")).await.expect("it may be read");
            let given = [Owned::new("b", 2)];
            let error =
                table.upsert(&rows(&given), Overwrite::Always).await.expect_err("it may not be written");
            assert_eq!(error.class(), Class::Configuration, "{error}");
            assert!(
                error.to_string().starts_with("could not write to the LanceDB table docs: this user may not"),
                "{error}"
            );
            assert!(error.remedy().expect("there is one").contains("right to read and write"));
            assert!(!error.to_string().contains("text 2"));
        });
        // The owner of a folder may change its rights, and here the child is not the owner.
        let below = format!("{uri}/docs.lance/below");
        let error = opened(&below).lock().expect_err("no folder can be made there");
        assert!(error.to_string().contains("it cannot be made: Permission denied"), "{error}");
        assert_eq!(error.class(), Class::Configuration);
    };
    if let Ok(uri) = env::var(CHILD) {
        return judge(&uri);
    }
    let folder = folder();
    run(async {
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&[Owned::new("a", 1)]), Overwrite::Always).await.expect("written");
    });
    set_modes(folder.path(), 0o555, 0o666);
    if fs::metadata("/proc/self").expect("it is there").uid() == 0 {
        let mut command = Command::new("/proc/self/exe");
        command.uid(NOBODY).current_dir("/");
        run_child(command, THIS, folder.path());
    } else {
        judge(folder.path().to_str().expect("text"));
    }
    set_modes(folder.path(), 0o755, 0o644);
    let found = run(contents(&dataset(&folder), "docs"));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_disk_that_takes_no_more_loses_nothing_and_the_same_rows_can_be_written_later() {
    const THIS: &str = "disk::a_disk_that_takes_no_more_loses_nothing_and_the_same_rows_can_be_written_later";
    let small: Vec<Owned> = (0..10).map(|number| Owned::new(format!("a{number}"), number)).collect();
    let large: Vec<Owned> = (0..20_000).map(|number| Owned::new(format!("b{number}"), number)).collect();
    let write = async |uri: &str, rows_of: &[Owned]| {
        let locked = opened(uri).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("opened");
        table.upsert(&rows(rows_of), Overwrite::Always).await
    };
    if let Ok(uri) = env::var(CHILD) {
        return run(async {
            write(&uri, &small).await.expect("there is room");
            let error = write(&uri, &large).await.expect_err("no room");
            assert_eq!(error.class(), Class::Transient, "{error}");
            assert!(error.to_string().contains("the disk is full: File too large (os error 27)"), "{error}");
            assert!(error.remedy().expect("there is one").contains("Free space"));
        });
    }
    let folder = folder();
    let uri = folder.path().to_str().expect("text").to_owned();
    // No file may be longer than 256 blocks of 512 bytes; some shells count 1,024.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("a path"));
    run_child(command, THIS, folder.path());
    assert_eq!(run(contents(&opened(&uri), "docs")).len(), 10);
    run(async { write(&uri, &large).await.expect("there is room again") });
    assert_eq!(run(contents(&opened(&uri), "docs")).len(), 20_010);
}
