//! What is decoded is what stands in the table.

use super::*;
use crate::support::random::Random;

/// A text of JSON that few programs would write: escapes of all kinds, numbers out of all measure.
fn wild_json(random: &mut Random, depth: usize, out: &mut String) {
    let space = |random: &mut Random| random.pick(&["", "", "", " ", "\n\t ", "\r"]);
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => out.push_str(random.pick(&["null", "true", "false"])),
        1 => wild_number(random, out),
        2 | 3 => wild_string(random, out),
        4 => {
            out.push('[');
            for index in 0..random.below(4) {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(space(random));
                wild_json(random, depth - 1, out);
                out.push_str(space(random));
            }
            out.push(']');
        }
        _ => wild_object(random, depth - 1, out),
    }
}

fn wild_object(random: &mut Random, depth: usize, out: &mut String) {
    out.push('{');
    for index in 0..random.below(4) {
        if index > 0 {
            out.push(',');
        }
        wild_string(random, out);
        out.push_str(random.pick(&[":", " : ", ":\n"]));
        wild_json(random, depth, out);
    }
    out.push('}');
}

fn wild_number(random: &mut Random, out: &mut String) {
    let most = if random.chance(5) { 20_000 } else { 20 };
    out.push_str(random.pick(&["", "-"]));
    if random.chance(40) {
        out.push('0');
    } else {
        out.push(char::from(b'1' + random.below(9) as u8));
        digits(random, most, out);
    }
    if random.chance(40) {
        out.push_str(random.pick(&[".0", ".9"]));
        digits(random, most, out);
    }
    if random.chance(40) {
        let most = random.pick(&[10, 400, 20_000, 200_000, usize::MAX >> 1]);
        out.push_str(random.pick(&["e", "E", "e+", "e-"]));
        out.push_str(&random.below(most).to_string());
    }
}

fn digits(random: &mut Random, most: usize, out: &mut String) {
    out.extend((0..random.below(most)).map(|_| char::from(b'0' + random.below(10) as u8)));
}

fn wild_string(random: &mut Random, out: &mut String) {
    out.push('"');
    for _ in 0..random.below(6) {
        match random.below(100) {
            0 => out.push_str(r"\u0000"),
            1 => out.push_str(random.pick(&[r"\ud800", r"\udfff", r"\ud800\ud800", r"\udc00\ud800"])),
            2..20 => out.push_str(random.pick(&[
                r"\ud83d\ude00",
                r"\uD83D\uDE00",
                r"\udbff\udfff",
                r"\uFFFE",
                r"\uffff",
            ])),
            20..40 => out.push_str(
                random.pick(&[r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\\u0000"]),
            ),
            40..60 => out.push_str(&format!("\\u{:04x}", 1 + random.below(0xD7FF))),
            60..80 => out.extend(
                char::from_u32(0x20 + random.below(0x11_0000 - 0x20) as u32)
                    .filter(|c| !r#"\""#.contains(*c)),
            ),
            _ => out.push(random.pick(&['a', 'é', '😀', '{', '[', ',', '\u{7f}', '\u{feff}', '\'', '$'])),
        }
    }
    out.push('"');
}

#[tokio::test]
async fn metadata_that_is_accepted_is_accepted_by_postgres() {
    let database = Database::create().await;
    let client = database.connect().await;
    let statement = client.prepare("select $1::text::jsonb is not null").await.unwrap();
    let mut random = Random::new("metadata that is accepted is accepted by Postgres");
    let (mut both, mut neither, mut ours_alone) = (0, 0, BTreeMap::new());
    for round in 0..6_000 {
        let mut metadata = String::new();
        let depth = if round % 50 == 0 { 100 + random.below(60) } else { 0 };
        metadata.push_str(&"{\"a\":[".repeat(depth / 2));
        wild_object(&mut random, 4, &mut metadata);
        metadata.push_str(&"]}".repeat(depth / 2));
        let payload = format!(r#"{{"id": "a", "embedding": [], "metadata": {metadata}}}"#);
        let record = SourceRecord {
            offset: 0,
            timestamp: None,
            key: None,
            payload: Some(payload.as_bytes()),
            headers: Headers::default(),
            omitted: 0,
        };
        let ours = decode(&record, &mut Vec::new()).map(drop);
        let theirs = client.query_one(&statement, &[&metadata]).await;
        match (ours, theirs) {
            (Ok(()), Ok(_)) => both += 1,
            (Err(_), Err(_)) => neither += 1,
            (Ok(()), Err(error)) => panic!("Postgres refuses {metadata}: {error:?}"),
            (Err(reject), Ok(_)) => *ours_alone.entry(reject.to_string()).or_insert(0) += 1,
        }
    }
    println!("accepted: {both}, refused: {neither}, refused by us alone: {ours_alone:?}");
    assert!(both > 3_000 && neither > 100);
    assert!(ours_alone.values().sum::<i32>() < 600, "{ours_alone:?}");
    let reasons =
        ours_alone.keys().all(|said| said.contains("deeper than 128") || said.contains("more digits"));
    assert!(reasons, "{ours_alone:?}");
}

#[tokio::test]
async fn what_is_decoded_is_what_stands_in_the_table() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let mut random = Random::new("what is decoded is what stands in the table");
    let mut records = Vec::new();
    for offset in 0..2_000_i64 {
        let mut fields = Vec::new();
        let number = |random: &mut Random| loop {
            let number = f32::from_bits(random.next() as u32);
            if number.is_finite() {
                return format!("{number:e}");
            }
        };
        let numbers: Vec<String> = (0..DIMENSIONS).map(|_| number(&mut random)).collect();
        fields.push(format!(r#""embedding":[{}]"#, numbers.join(",")));
        for field in ["text", "source"] {
            if random.chance(70) {
                let mut text = String::new();
                wild_string(&mut random, &mut text);
                fields.push(format!(r#""{field}":{text}"#));
            }
        }
        if random.chance(70) {
            let mut metadata = String::new();
            wild_object(&mut random, 3, &mut metadata);
            fields.push(format!(r#""metadata":{metadata}"#));
        }
        if random.chance(90) {
            let millis = random.pick(&[
                "-62135596800000",
                "253402300799999",
                "0",
                "-1",
                "1704067200000.125",
                "\"9999-12-31T23:59:59.999999Z\"",
                "\"0001-01-01T00:00:00Z\"",
                "\"2024-02-29 12:00:00.000001+05:30\"",
                "null",
            ]);
            fields.push(format!(r#""timestamp":{millis}"#));
        }
        records.push((offset, format!("key {offset}"), format!("{{{}}}", fields.join(","))));
    }
    let log: Vec<(i64, &str, Option<String>)> =
        records.iter().map(|(offset, key, payload)| (*offset, key.as_str(), Some(payload.clone()))).collect();
    durable(writer.write(&stage.batch(1, &holding, &log)).await);

    let statement = stage
        .outside
        .prepare(
            "select text, embedding::real[], (extract(epoch from timestamp) * 1000000)::int8, source, \
             metadata is not distinct from $2::text::jsonb from first where id = $1",
        )
        .await
        .unwrap();
    let (mut vector, mut good) = (Vec::new(), 0);
    for (_, key, payload) in &records {
        let record = SourceRecord {
            offset: 0,
            timestamp: Some(1_704_067_200_000),
            key: Some(key.as_bytes()),
            payload: Some(payload.as_bytes()),
            headers: Headers::default(),
            omitted: 0,
        };
        let Ok(Change::Upsert(wanted)) = decode(&record, &mut vector) else {
            continue;
        };
        good += 1;
        let row = stage.outside.query_one(&statement, &[key, &wanted.metadata]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), wanted.text.as_deref());
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row.get::<_, Vec<f32>>(1)), bits(&vector), "{payload}");
        assert_eq!(row.get::<_, Option<i64>>(2), wanted.timestamp, "{payload}");
        assert_eq!(row.get::<_, Option<&str>>(3), wanted.source.as_deref());
        assert!(row.get::<_, bool>(4), "{payload}");
    }
    assert!(good > 1_000);
    let kept: i64 = stage.one("select count(*) from embedsink.dead_letters").await;
    assert_eq!(kept, 2_000 - good);
    let reasons: i64 =
        stage.one("select count(*) from embedsink.dead_letters where reason = 'nul_byte'").await;
    assert!(reasons > 0 && RejectReason::NulByte.as_str() == "nul_byte");
}
