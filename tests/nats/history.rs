//! History: exact, with foreign traffic in between, bounded.

use causeway::bus::{Bus, Since, Stored};
use causeway::message::{Class, Code, Space};

use super::support::{Plan, Server};
use super::{fact, space};

const ROOM: usize = 32 << 20;

fn bodies(read: &[Stored]) -> Vec<u64> {
    let text = |stored: &Stored| String::from_utf8(stored.body.bytes.to_vec()).unwrap();
    read.iter().map(|stored| text(stored).parse().unwrap()).collect()
}

async fn events(bus: &Bus, space: &Space, since: Since, up_to: u64) -> Vec<u64> {
    let read = bus.read(Class::Event, space, "voice", since, up_to, ROOM);
    bodies(&read.await.unwrap())
}

#[tokio::test]
async fn five_hundred_events_come_back_exactly() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut seqs = Vec::new();
    for n in 0..500 {
        let topic = format!("t{}", n % 7);
        seqs.push(
            bus.append(fact(Class::Event, &main, &topic, &n.to_string()))
                .await
                .unwrap(),
        );
        if n % 3 == 0 {
            bus.append(fact(Class::Event, &space("other"), "t", "0"))
                .await
                .unwrap();
        }
    }
    let tail = bus.tail(Class::Event).await.unwrap();
    assert_eq!((tail.first_seq, tail.last_seq), (1, 667));
    assert!(tail.epoch > 1_700_000_000_000_000_000);
    let all = events(&bus, &main, Since::After(0), tail.last_seq).await;
    assert_eq!(all, (0..500).collect::<Vec<_>>());
    let rest = events(&bus, &main, Since::After(seqs[123]), tail.last_seq).await;
    assert_eq!(rest, (124..500).collect::<Vec<_>>());
    let cut = events(&bus, &main, Since::After(seqs[123]), seqs[130]).await;
    assert_eq!(cut, (124..=130).collect::<Vec<_>>());
    let last = events(&bus, &main, Since::Last(100), tail.last_seq).await;
    assert_eq!(last, (400..500).collect::<Vec<_>>());
    // what came after the cut must not shorten the answer
    let before = events(&bus, &main, Since::Last(100), seqs[300]).await;
    assert_eq!(before, (201..=300).collect::<Vec<_>>());
    let more = events(&bus, &main, Since::Last(9999), tail.last_seq).await;
    assert_eq!(more.len(), 500);
    assert!(
        events(&bus, &main, Since::After(tail.last_seq), tail.last_seq)
            .await
            .is_empty()
    );
    assert!(
        events(&bus, &main, Since::Last(0), tail.last_seq)
            .await
            .is_empty()
    );
    assert_eq!(bus.last_of(Class::Event, &main, "voice").await, Ok(seqs[499]));
    let small = bus.read(Class::Event, &main, "voice", Since::After(0), tail.last_seq, 1000);
    assert_eq!(small.await.unwrap_err().code, Code::TooLarge);
}

#[tokio::test]
async fn the_last_ones_are_found_far_behind_foreign_traffic() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let rare = space("rare");
    for n in 0..120 {
        bus.append(fact(Class::Event, &rare, "t", &n.to_string()))
            .await
            .unwrap();
    }
    let client = server.client().await;
    for _ in 0..20_000 {
        client
            .publish("gw.v1.evt.busy.voice.t", "0".into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
    let _ = client.request("nobody.is.here", "".into()).await;
    bus.append(fact(Class::Event, &rare, "t", "120")).await.unwrap();
    let tail = bus.tail(Class::Event).await.unwrap();
    assert_eq!(tail.last_seq, 20_121);
    let last = events(&bus, &rare, Since::Last(100), tail.last_seq).await;
    assert_eq!(last, (21..=120).collect::<Vec<_>>());
    let busy = events(&bus, &space("busy"), Since::Last(300), tail.last_seq).await;
    assert_eq!(busy.len(), 300);
    let nothing = events(&bus, &space("empty"), Since::Last(100), tail.last_seq).await;
    assert!(nothing.is_empty());
    assert_eq!(bus.last_of(Class::Event, &space("empty"), "voice").await, Ok(0));
}

#[tokio::test]
async fn large_histories_take_more_than_one_batch() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    // numbers that parse, with zeros in front: 900 KiB each
    for n in 0..12_u64 {
        let body = "0".repeat(900 << 10) + &n.to_string();
        bus.append(fact(Class::Event, &main, "t", &body)).await.unwrap();
    }
    assert_eq!(
        events(&bus, &main, Since::After(0), 12).await,
        (0..12).collect::<Vec<_>>()
    );
    assert_eq!(events(&bus, &main, Since::Last(3), 12).await, [9, 10, 11]);
}

#[tokio::test]
async fn state_is_the_last_value_of_each_topic_tombstones_included() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    for (topic, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "")] {
        bus.append(fact(Class::State, &main, topic, body)).await.unwrap();
    }
    bus.append(fact(Class::State, &space("other"), "a", "9"))
        .await
        .unwrap();
    let read = |since| bus.read(Class::State, &main, "voice", since, 6, ROOM);
    let shape = |read: Vec<Stored>| {
        let line = |s: &Stored| format!("{} {} {}", s.topic, s.seq, s.body.bytes.len());
        read.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        shape(read(Since::After(0)).await.unwrap()),
        ["a 3 1", "c 4 1", "b 5 0"]
    );
    assert_eq!(shape(read(Since::After(4)).await.unwrap()), ["b 5 0"]);
    assert_eq!(shape(read(Since::Last(2)).await.unwrap()), ["c 4 1", "b 5 0"]);
    assert_eq!(bus.last_of(Class::State, &main, "voice").await, Ok(5));
}

#[tokio::test]
async fn a_purge_moves_the_first_sequence_and_keeps_the_epoch() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    for n in 0..5 {
        bus.append(fact(Class::Event, &main, "t", &n.to_string()))
            .await
            .unwrap();
    }
    let before = bus.tail(Class::Event).await.unwrap();
    let purge = server.client().await;
    purge
        .request("$JS.API.STREAM.PURGE.GW_EVENTS", "".into())
        .await
        .unwrap();
    let after = bus.tail(Class::Event).await.unwrap();
    assert_eq!(
        (after.epoch, after.first_seq, after.last_seq),
        (before.epoch, 6, 5)
    );
    assert!(!after.resumes(Class::Event, before.epoch, 3));
    assert!(after.resumes(Class::Event, before.epoch, 5));
    assert!(events(&bus, &main, Since::After(0), 5).await.is_empty());
    assert!(events(&bus, &main, Since::Last(100), 5).await.is_empty());
}

#[tokio::test]
async fn of_the_last_ones_the_oldest_give_way_to_the_bound() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    for n in 0..10 {
        let body = format!("{n:010000}");
        bus.append(fact(Class::Event, &main, "t", &body)).await.unwrap();
        // what is not asked for has its place in the stream too
        bus.append(fact(Class::Event, &space("other"), "t", &body))
            .await
            .unwrap();
    }
    let tail = bus.tail(Class::Event).await.unwrap();
    for (room, given) in [(ROOM, 0..10), (45_000, 6..10), (1, 9..10)] {
        let last = Since::Last(10);
        let read = bus.read(Class::Event, &main, "voice", last, tail.last_seq, room);
        let read = read.await.unwrap();
        assert_eq!(bodies(&read), given.collect::<Vec<_>>(), "{room}");
        assert!(read.is_sorted_by_key(|stored| stored.seq));
    }
}

#[tokio::test]
async fn what_a_body_is_said_to_have_takes_no_room() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    bus.append(fact(Class::Event, &main, "t", "1")).await.unwrap();
    let stranger = async_nats::jetstream::new(server.client().await);
    for reference in [
        "object:GW_BODIES/none;size=99999999999999;sha256=00",
        "size=18446744073709551615",
    ] {
        let mut lie = async_nats::HeaderMap::new();
        lie.insert("Gw-Body", reference);
        let sent = stranger.publish_with_headers("gw.v1.evt.main.voice.t", lie, "".into());
        sent.await.unwrap().await.unwrap();
    }
    for since in [Since::Last(10), Since::After(0)] {
        let read = bus
            .read(Class::Event, &main, "voice", since, 3, ROOM)
            .await
            .unwrap();
        let kinds: Vec<_> = read
            .iter()
            .map(|stored| stored.body.content_type.as_deref())
            .collect();
        assert_eq!(kinds, [None, Some("gw/expired"), Some("gw/expired")]);
    }
}
