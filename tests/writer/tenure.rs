//! Partitions that are taken over: who had one before writes nothing more of it.

use super::*;

#[tokio::test]
async fn a_writer_whose_partition_was_taken_by_another_writes_nothing() {
    let stage = Stage::set().await;
    let (mut zombie, mut heir) = (stage.writer(), stage.writer());
    let old = Holding::take(&mut zombie, 0).await;
    durable(zombie.write(&stage.batch(1, &old, &[(0, "a", payload("first"))])).await);

    let new = Holding::take(&mut heir, 0).await;
    assert!(new.taken.tenure > old.taken.tenure);
    assert_eq!(new.taken.next_offset, 1);
    let late = stage.batch(
        2,
        &old.at(1),
        &[(1, "a", payload("zombie")), (2, "b", None), (3, "c", Some(String::new()))],
    );
    let before = stage.happened().await;
    for _ in 0..3 {
        assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
    }
    assert_eq!(stage.happened().await, before);
    assert_eq!(stage.position(&new.partition).await, 1);

    durable(heir.write(&stage.batch(3, &new, &[(1, "a", payload("heir"))])).await);
    assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "heir")]));
    // The stored position is by now where the zombie's batch would have put it.
    durable(heir.write(&stage.batch(4, &new.at(2), &[(2, "x", None), (3, "x", None)])).await);
    assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
}

#[tokio::test]
async fn a_take_waits_for_the_write_under_way_and_goes_on_behind_it() {
    let stage = Stage::set().await;
    let (mut old, mut new) = (stage.writer(), stage.writer());
    let holding = Holding::take(&mut old, 0).await;
    durable(old.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second")), (2, "b", payload("third"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let writing = tokio::spawn(async move { old.write(&batch).await });
    stage.waiting(1).await;
    let partition = holding.partition.clone();
    let taking = tokio::spawn(async move { new.take(&partition, First::at(0)).await });
    stage.waiting(2).await;
    run(&other, "commit").await;

    durable(writing.await.unwrap());
    let taken = taking.await.unwrap().unwrap();
    assert_eq!((taken.next_offset, taken.stored), (3, true));
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "third")]));
}

#[tokio::test]
async fn a_take_raises_the_epoch_and_keeps_the_position() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let partition = Partition::new("topic", 0);
    let first = writer.take(&partition, First::at(40)).await.unwrap();
    assert_eq!((first.next_offset, first.stored), (40, false));
    let second = writer.take(&partition, First::at(90)).await.unwrap();
    assert_eq!((second.next_offset, second.stored), (40, true));
    assert!(second.tenure > first.tenure);
    // Another partition, another topic, another connector: each has its own.
    for (mut writer, partition) in [
        (stage.writer(), Partition::new("topic", 1)),
        (stage.writer(), Partition::new("topic 2", 0)),
        (stage.writer_of("connector 2", stage.database.port()), partition),
    ] {
        let taken = writer.take(&partition, First::at(7)).await.unwrap();
        assert_eq!((taken.next_offset, taken.stored), (7, false));
    }
}

#[tokio::test]
async fn takes_at_the_same_time_get_tenures_of_their_own() {
    let stage = Stage::set().await;
    let mut takes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut writer = stage.writer();
        takes.spawn(async move { writer.take(&Partition::new("topic", 0), First::at(5)).await.unwrap() });
    }
    let taken = takes.join_all().await;
    let mut tenures: Vec<Tenure> = taken.iter().map(|taken| taken.tenure).collect();
    tenures.sort();
    tenures.dedup();
    assert_eq!(tenures.len(), 8);
    assert!(taken.iter().all(|taken| taken.next_offset == 5));
    assert_eq!(taken.iter().filter(|taken| !taken.stored).count(), 1);
}
