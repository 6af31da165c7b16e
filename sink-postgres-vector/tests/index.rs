//! A table's vector index: found, built by one, built anew, and left alone.

use std::time::{Duration, Instant};

use sink_postgres_vector::{
    BuildLimits, Connection, Error, Ident, IndexBuild, IndexFound, IndexMethod, IndexSpec, Metric,
    MigrateError, VectorIndex, VectorTable,
};

use crate::support::{Database, one, options, row, run, vectors, write};

const HNSW: IndexSpec =
    IndexSpec { method: IndexMethod::Hnsw { m: 8, ef_construction: 32 }, metric: Metric::L2 };
const LIMITS: BuildLimits = BuildLimits { maintenance_memory: 64 << 20, halved: 0, workers: None };
const OURS: &str = "embeddings_embedsink_hnsw_l2";

/// A table with `rows` rows of 16 dimensions.
async fn stage(rows: usize) -> (Database, Connection, VectorTable, VectorIndex) {
    let (database, mut connection, table) = Database::with_table(16).await;
    let (vectors, ids) = (vectors(rows, 16), (0..rows).map(|id| id.to_string()).collect::<Vec<_>>());
    let rows: Vec<_> = ids.iter().zip(&vectors).map(|(id, vector)| row(id, "text", vector)).collect();
    if !rows.is_empty() {
        write(&mut connection, &table, &rows).await;
    }
    let index = VectorIndex::new(&table, HNSW);
    (database, connection, table, index)
}

async fn begin<'i>(database: &Database, index: &'i VectorIndex) -> Option<IndexBuild<'i>> {
    IndexBuild::begin(&database.options(), index).await.unwrap()
}

/// Whether a search by the table's distance goes by the index.
async fn is_searched(connection: &Connection, index: &str) -> bool {
    let sql = "explain select id from embeddings order by embedding <-> (select embedding from embeddings limit 1) \
               limit 5";
    run(connection, "set enable_seqscan = off").await;
    let plan = connection.client().query(sql, &[]).await.unwrap();
    plan.iter().any(|line| line.get::<_, &str>(0).contains(index))
}

#[tokio::test]
async fn an_index_is_built_by_one_at_a_time_and_then_searched() {
    let (database, connection, _, index) = stage(2_000).await;
    assert_eq!(index.name().as_str(), OURS);
    assert_eq!(index.find(&connection).await.unwrap(), IndexFound::Missing);
    assert!(index.has_rows(&connection).await.unwrap());
    assert_eq!(index.rows_up_to(&connection, 3_000).await.unwrap(), 2_000);
    assert_eq!(index.rows_up_to(&connection, 1_000).await.unwrap(), 1_000);
    let build = begin(&database, &index).await.unwrap();
    assert!(begin(&database, &index).await.is_none(), "somebody has the turn");
    let built = build.build(&LIMITS).await.unwrap();
    assert_eq!((built.rows, built.maintenance_memory), (2_000.0, 64 << 20));
    build.end().await;
    let next = begin(&database, &index).await.expect("the turn was given back");
    assert_eq!(next.find().await.unwrap(), IndexFound::Ready);
    assert!(is_searched(&connection, OURS).await);
    let options: String =
        one(&connection, &format!("select reloptions::text from pg_class where relname = '{OURS}'")).await;
    assert_eq!(options, "{m=8,ef_construction=32}");
}

#[tokio::test]
async fn an_index_by_hand_counts_when_it_serves_the_same_searches() {
    let (_database, connection, table, index) = stage(0).await;
    for other in [
        "create index a on embeddings using hnsw (embedding vector_cosine_ops)",
        "create index b on embeddings using ivfflat (embedding vector_l2_ops)",
        "create index c on embeddings using hnsw (embedding vector_l2_ops) where source = 'x'",
        "create index d on embeddings using hnsw ((embedding::halfvec(16)) halfvec_l2_ops)",
    ] {
        run(&connection, other).await;
        assert_eq!(index.find(&connection).await.unwrap(), IndexFound::Missing, "{other}");
    }
    run(&connection, "create index \"By Hand\" on embeddings using hnsw (embedding vector_l2_ops)").await;
    let by_hand = |valid| IndexFound::ByHand { name: Ident::new("By Hand").unwrap(), valid };
    assert_eq!(index.find(&connection).await.unwrap(), by_hand(true));
    run(&connection, "update pg_index set indisvalid = false where indexrelid = '\"By Hand\"'::regclass")
        .await;
    assert_eq!(index.find(&connection).await.unwrap(), by_hand(false));
    assert_eq!(index.qualified(&Ident::new("By Hand").unwrap()), "\"public\".\"By Hand\"");
    let cosine = IndexSpec { metric: Metric::Cosine, ..HNSW };
    let cosine = VectorIndex::new(&table, cosine).find(&connection).await.unwrap();
    assert_eq!(cosine, IndexFound::ByHand { name: Ident::new("a").unwrap(), valid: true });
}

#[tokio::test]
async fn a_build_waits_for_old_transactions_keeps_nobody_from_writing_and_can_be_broken_off() {
    let (database, mut connection, table, index) = stage(500).await;
    let old = database.connect().await;
    run(&old, "begin; update embeddings set text = 'old' where id = '1'").await;
    let build = begin(&database, &index).await.unwrap();
    let (backend, vector) = (build.backend(), [0.5; 16]);
    let meanwhile = async {
        let phase = loop {
            if let Some(progress) = index.progress(&connection).await.unwrap()
                && progress.phase.starts_with("waiting")
            {
                break progress.phase;
            }
        };
        assert_eq!(phase, "waiting for writers before build");
        assert_eq!(write(&mut connection, &table, &[row("new", "", &vector)]).await, 1);
        IndexBuild::cancel(&connection, backend).await.unwrap();
    };
    let (built, ()) = tokio::join!(build.build(&LIMITS), meanwhile);
    let error: Error = built.unwrap_err();
    assert!(error.to_string().contains("57014"), "{error}");
    assert_eq!(build.find().await.unwrap(), IndexFound::Invalid);
    build.end().await;
    run(&old, "rollback").await;

    let build = begin(&database, &index).await.unwrap();
    assert!(build.drop_invalid().await.unwrap());
    assert_eq!(build.find().await.unwrap(), IndexFound::Missing);
    build.build(&LIMITS).await.unwrap();
    assert_eq!(build.find().await.unwrap(), IndexFound::Ready);
    assert!(is_searched(&connection, OURS).await);
}

#[tokio::test]
async fn an_empty_table_is_indexed_whatever_else_the_database_is_doing() {
    let (database, connection, _, index) = stage(0).await;
    let old = database.connect().await;
    run(&old, "create table other ()").await;
    run(&old, "begin isolation level repeatable read").await;
    run(&old, "insert into other default values").await;
    assert!(!index.has_rows(&connection).await.unwrap());
    begin(&database, &index).await.unwrap().build(&LIMITS).await.unwrap();
    assert_eq!(index.find(&connection).await.unwrap(), IndexFound::Ready);
}

#[tokio::test]
async fn over_a_pooler_an_index_is_built_in_one_transaction() {
    let (database, connection, table, _) = stage(1_500).await;
    let spec = IndexSpec { method: IndexMethod::Ivfflat { lists: None }, metric: Metric::InnerProduct };
    let index = VectorIndex::new(&table, spec);
    let mut through = database.options();
    through.prepared = false;
    let build = IndexBuild::begin(&through, &index).await.unwrap().unwrap();
    assert!(IndexBuild::begin(&through, &index).await.unwrap().is_none(), "somebody has the turn");
    build.build(&LIMITS).await.unwrap();
    // The commit has given the turn back too.
    let next = IndexBuild::begin(&through, &index).await.unwrap().unwrap();
    assert_eq!(next.find().await.unwrap(), IndexFound::Ready);
    let lists = "select reloptions::text from pg_class where relname = 'embeddings_embedsink_ivfflat_ip'";
    assert_eq!(one::<String>(&connection, lists).await, "{lists=1}");
}

#[tokio::test]
async fn who_may_not_index_is_told_what_is_in_the_way() {
    let (database, connection, _, index) = stage(0).await;
    let role = format!("\"{} reader\"", database.name());
    run(&connection, &format!("create role {role} login; grant select on embeddings to {role}")).await;
    let mut login = options(database.name());
    login.user = format!("{} reader", database.name());
    let other = Connection::open(&login).await.unwrap();
    let error = index.check(&other).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, MigrateError::Index { .. }));
    for part in ["does not own the table, which belongs to \"postgres\"", "embedsink migrate", &role] {
        assert!(text.contains(part), "{part} in {text}");
    }
    run(&connection, &format!("alter table embeddings owner to {role}")).await;
    let text = index.check(&other).await.unwrap_err().to_string();
    assert!(text.contains(&format!("grant create on schema \"public\" to {role};")), "{text}");
    run(&connection, &format!("grant create on schema public to {role}")).await;
    index.check(&other).await.unwrap();
    begin(&database, &index).await.unwrap().build(&LIMITS).await.unwrap();
    run(
        &connection,
        &format!("alter table embeddings owner to postgres; drop owned by {role}; drop role {role}"),
    )
    .await;
    index.check(&connection).await.unwrap();
}

#[tokio::test]
async fn what_somebody_builds_by_hand_under_our_name_is_not_dropped() {
    let (database, connection, _, index) = stage(500).await;
    let (old, hand) = (database.connect().await, database.connect().await);
    // To one who may not read the statistics of others, it is no less there.
    let role = format!("{} owner", database.name());
    run(
        &connection,
        &format!(
            "create role \"{role}\" login; grant create on schema public to \"{role}\"; \
             alter table embeddings owner to \"{role}\""
        ),
    )
    .await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let sql = format!("create index concurrently {OURS} on embeddings using hnsw (embedding vector_l2_ops)");
    let meanwhile = async {
        while index.find(&connection).await.unwrap() == IndexFound::Missing {}
        for user in [role.clone(), database.options().user] {
            let mut login = database.options();
            login.user = user;
            let build = IndexBuild::begin(&login, &index).await.unwrap().unwrap();
            assert_eq!(build.find().await.unwrap(), IndexFound::Invalid);
            assert!(!build.drop_invalid().await.unwrap(), "{}", login.user);
            let backend = build.backend();
            build.end().await;
            let is_there = format!("select exists (select from pg_stat_activity where pid = {backend})");
            while one::<bool>(&connection, &is_there).await {}
        }
        run(&old, "rollback").await;
    };
    let (built, ()) = tokio::join!(hand.client().batch_execute(&sql), meanwhile);
    built.unwrap();
    assert_eq!(index.find(&connection).await.unwrap(), IndexFound::Ready);
    run(
        &connection,
        &format!("alter table embeddings owner to postgres; drop owned by \"{role}\"; drop role \"{role}\""),
    )
    .await;
}

#[tokio::test]
async fn a_limit_for_transactions_does_not_end_a_build() {
    let (database, connection, _, index) = stage(500).await;
    run(&connection, &format!("alter database {} set transaction_timeout = '300ms'", database.name())).await;
    let old = database.connect().await;
    for prepared in [true, false] {
        run(&old, "begin; lock table embeddings in row exclusive mode").await;
        let mut login = database.options();
        login.prepared = prepared;
        let build = IndexBuild::begin(&login, &index).await.unwrap().unwrap();
        let is_long = format!(
            "select exists (select from pg_stat_activity where pid = {} and state = 'active' \
             and clock_timestamp() - xact_start > '500ms')",
            build.backend()
        );
        let meanwhile = async {
            while !one::<bool>(&connection, &is_long).await {}
            run(&old, "rollback").await;
            Ok(())
        };
        tokio::try_join!(build.build(&LIMITS), meanwhile).unwrap();
        build.end().await;
        assert_eq!(index.find(&connection).await.unwrap(), IndexFound::Ready);
        run(&connection, &format!("drop index {OURS}")).await;
    }
}

#[tokio::test]
async fn who_has_run_out_of_memory_builds_a_graph_with_less() {
    let (database, _, _, index) = stage(500).await;
    let build = begin(&database, &index).await.unwrap();
    let built = build.build(&BuildLimits { halved: 2, workers: Some(0), ..LIMITS }).await.unwrap();
    assert_eq!(built.maintenance_memory, 16 << 20);
}

#[tokio::test]
async fn through_a_pooler_too_a_build_ends_soon_after_who_wants_it() {
    let (database, connection, _, index) = stage(500).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut through = database.options();
    through.prepared = false;
    let build = IndexBuild::begin(&through, &index).await.unwrap().unwrap();
    let is = |what: &str| {
        format!("select exists (select from pg_stat_activity where pid = {} and {what})", build.backend())
    };
    let (waits, is_there) = (is("wait_event_type = 'Lock'"), is("true"));
    tokio::select! {
        built = build.build(&LIMITS) => panic!("{built:?}"),
        () = async { while !one::<bool>(&connection, &waits).await {} } => {}
    }
    drop(build);
    let since = Instant::now();
    while one::<bool>(&connection, &is_there).await {}
    // It would wait 10 s for its lock.
    assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
}
