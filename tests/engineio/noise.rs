//! Properties: payloads survive the way there and back, and no order of events breaks the polling machine.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use causeway::wire::engineio::polling::{Act, Polling, Ticket};
use causeway::wire::engineio::{Frame, Packet, Payload, write_payload};

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        "[0-6][^\x1e]{0,20}".prop_map(|text| Frame::Text(text.into())),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Frame::Binary(bytes.into())),
    ]
}

#[derive(Clone, Debug)]
enum Input {
    Get,
    Post(Vec<u8>),
    Abandon(Ticket),
    Socket,
    Said(Ticket, Frame),
    SocketGone(Ticket),
    Send(Frame),
    Close,
    Abort,
    Pass(u64),
}

fn input() -> impl Strategy<Value = Input> {
    let ticket = || 1..30_u64;
    let word = prop_oneof![Just("2probe"), Just("5"), Just("4x"), Just("1"), Just("zz")];
    prop_oneof![
        4 => Just(Input::Get),
        3 => prop_oneof!["[1-6b]{0,3}(\x1e4x){0,2}".prop_map(String::into_bytes), vec(any::<u8>(), 0..9)].prop_map(Input::Post),
        1 => ticket().prop_map(Input::Abandon),
        2 => Just(Input::Socket),
        4 => (ticket(), word).prop_map(|(ticket, word)| Input::Said(ticket, Frame::Text(word.into()))),
        1 => ticket().prop_map(Input::SocketGone),
        4 => frame().prop_map(Input::Send),
        1 => Just(Input::Close),
        1 => Just(Input::Abort),
        1 => (0..20_u64).prop_map(Input::Pass),
    ]
}

proptest! {
    #[test]
    fn payloads_survive_there_and_back(frames in vec(frame(), 1..8)) {
        let body = write_payload(&frames);
        let read: Result<Vec<_>, _> = Payload::read(body).unwrap().collect();
        prop_assert_eq!(read.unwrap(), frames);
    }

    #[test]
    fn arbitrary_payloads_never_panic(body in vec(any::<u8>(), 0..200)) {
        for frame in Payload::read(body.into()).into_iter().flatten().flatten() {
            let _ = Packet::read(frame);
        }
    }

    /// Every request is answered exactly once, at the latest by the end; after the end only requests are answered;
    /// and whatever was sent arrives at most once and in order.
    #[test]
    fn no_order_of_events_breaks_a_session(inputs in vec(input(), 1..60)) {
        let mut polling = Polling::new(1000, 200);
        let mut now = Duration::ZERO;
        let (mut open, mut ended, mut ticket) = (Vec::new(), false, 0);
        for input in inputs {
            ticket += 1;
            let mut acts = Vec::new();
            match input {
                Input::Get => { open.push(ticket); polling.get(ticket, &mut acts); }
                Input::Post(body) => { open.push(ticket); polling.post(ticket, body.into(), &mut acts); }
                Input::Abandon(which) => {
                    open.retain(|&known| known != which);
                    polling.abandoned(which, &mut acts);
                }
                Input::Socket => polling.socket(now, ticket, &mut acts),
                Input::Said(which, frame) => polling.frame(which, frame, &mut acts),
                Input::SocketGone(which) => polling.socket_gone(which, &mut acts),
                Input::Send(frame) => polling.send(frame, &mut acts),
                Input::Close => polling.close(now, &mut acts),
                Input::Abort => polling.abort(&mut acts),
                Input::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    polling.wake(now, &mut acts);
                }
            }
            for act in acts {
                match act {
                    Act::Answer(which, _) => {
                        prop_assert!(open.contains(&which), "{which} answered twice or never asked");
                        open.retain(|&known| known != which);
                    }
                    Act::End(_) => {
                        prop_assert!(!ended, "ended twice");
                        ended = true;
                    }
                    Act::Shut(_) => {}
                    act => prop_assert!(!ended, "after the end: {act:?}"),
                }
            }
            prop_assert_eq!(ended, polling.is_over());
            prop_assert!(open.len() <= usize::from(!ended), "requests left without an answer: {open:?}");
        }
    }
}
