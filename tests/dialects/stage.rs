//! Plays the inputs of a transcript to a session and writes down what it does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use causeway::dialect::view::{Known, Merge, States, View};
use causeway::dialect::{Dialect, Fate, Frame, Notice, Opening, Routes, Session, Step, Transport, Welcome};
use causeway::message::{
    Answer, Body, CallId, Class, Close, Code, Event, Fault, Nanos, Now, Offset, Reply, Space,
};

use crate::transcript::{Input, Transcript, hex, unhex};

/// 2026-01-02T03:04:05.678Z, in every transcript.
const START: Nanos = 1_767_323_045_678_000_000;

/// A session and the world around it.
pub(crate) struct Stage {
    dialect: &'static dyn Dialect,
    session: Box<dyn Session>,
    space: Space,
    now: Now,
    seq: u64,
    history: Vec<Frame>,
    /// What sessions that look are shown.
    states: States,
    running: Vec<String>,
    gone: Vec<String>,
}

impl Stage {
    pub(crate) fn open(dialect: &'static dyn Dialect, transcript: &Transcript) -> Self {
        let mut space = Space::default();
        let mut target = String::from("/");
        let mut rows: Vec<(&str, &str)> = dialect.routes().to_vec();
        for setting in &transcript.settings {
            match setting.split_whitespace().collect::<Vec<_>>()[..] {
                ["space", name] => space = Space::parse(name).unwrap(),
                ["target", path] => target = path.to_owned(),
                ["route", action, service] => rows.push((action, service)),
                _ => panic!("unknown setting: {setting}"),
            }
        }
        let session = dialect.open(Opening {
            session: "01J00000000000000000000000".into(),
            space: space.clone(),
            routes: Arc::new(Routes::new(rows)),
            target: target.into(),
        });
        Self {
            dialect,
            session,
            space,
            now: Now {
                unix: START,
                mono: Duration::ZERO,
            },
            seq: 0,
            history: Vec::new(),
            states: States::new(),
            running: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Plays one input; what follows, in transcript lines.
    pub(crate) fn play(&mut self, input: &Input) -> Result<Vec<String>, String> {
        Ok(match input {
            Input::Said(frame) => match self.dialect.transport() {
                Transport::WebSocket => self.receive(frame.clone()),
                Transport::Tcp => self.feed(frame.bytes()),
            },
            Input::End => vec![format!("! end {}", self.session.finished())],
            Input::Bus(words) => self.bus(words)?,
            Input::Pass(nanos) => self.pass(*nanos),
        })
    }

    /// Bytes of a TCP stream.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.receive(Frame::Binary(bytes.to_vec().into()))
    }

    pub(crate) fn receive(&mut self, frame: Frame) -> Vec<String> {
        let mut out = Vec::new();
        let result = self.session.receive(self.now, frame, &mut out);
        let mut lines = self.performed(out);
        if let Err(offence) = result {
            lines.push(match offence.fate {
                Fate::Continue => format!("! {}", offence.code),
                Fate::Close(close) => format!("! {} close {} {}", offence.code, close.code, close.reason),
            });
        }
        lines
    }

    /// The steps in transcript lines; a look is answered at once.
    fn performed(&mut self, mut steps: Vec<Step>) -> Vec<String> {
        let mut lines = Vec::new();
        while !steps.is_empty() {
            let mut next = Vec::new();
            for step in steps {
                lines.push(written(&step));
                if matches!(step, Step::Look(_)) {
                    self.look(|session, now, view| session.seen(now, view, &mut next));
                }
            }
            steps = next;
        }
        lines
    }

    fn look(&mut self, then: impl FnOnce(&mut dyn Session, Now, &View)) {
        let view = View {
            states: &self.states,
            running: &|service| self.running.iter().any(|known| known == service),
            present: &|session| self.gone.iter().all(|known| known != session),
            settings: &|| Bytes::from_static(b"{\"axes\":false}"),
        };
        then(self.session.as_mut(), self.now, &view);
    }

    /// An arbitrary answer, for noise.
    pub(crate) fn answer_something(&mut self, number: u64) {
        let body = Body::json([&b"{\"a\":1}"[..], b"", b"\xff\x00", b"{"][number as usize % 4]);
        let answer = match number / 4 % 4 {
            0 => Answer::Ack(body),
            1 => Answer::Progress(body),
            2 => Answer::Done(body),
            _ => Answer::Failed(Fault {
                details: body,
                ..Fault::new(Code::WorkerError, "no \"luck\"\n")
            }),
        };
        let id = CallId(number / 16 % 8);
        self.session
            .reply(self.now, Reply { id, answer }, &mut Vec::new());
    }

    fn pass(&mut self, nanos: u64) -> Vec<String> {
        self.now.unix += nanos;
        self.now.mono += Duration::from_nanos(nanos);
        let mut out = Vec::new();
        if self.session.deadline().is_some_and(|at| at <= self.now.mono) {
            self.session.wake(self.now, &mut out);
        }
        out.iter().map(written).collect()
    }

    fn bus(&mut self, words: &str) -> Result<Vec<String>, String> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let mut out = Vec::new();
        match verb {
            "ack" | "progress" | "done" | "failed" => {
                let reply = reply(verb, rest).ok_or("an answer needs #number")?;
                self.session.reply(self.now, reply, &mut out);
            }
            "event" | "state" => {
                let event = self.event(verb, rest)?;
                if event.class == Class::State {
                    self.states.insert(event.topic.clone(), event.clone());
                }
                let frame = self.dialect.encode(self.session.encoding(), &event);
                out.extend(frame.map(Step::Send));
            }
            "history" => {
                let (class, rest) = rest.split_once(' ').ok_or("history of what?")?;
                let event = self.event(class, rest)?;
                let encoding = self.dialect.newcomer(self.session.encoding());
                self.history.extend(self.dialect.encode(encoding, &event));
            }
            "newcomer" => {
                let given = self.states.iter();
                let known = |(topic, event): (&Arc<str>, &Event)| Known {
                    topic: topic.clone(),
                    seq: event.seq,
                    gone: event.body.is_empty(),
                };
                let mut given: Vec<Known> = given.map(known).collect();
                self.dialect.arrange(&mut given);
                given.retain(|known| !known.gone);
                let encoding = self.dialect.newcomer(self.session.encoding());
                let frames = given
                    .iter()
                    .filter_map(|known| self.dialect.encode(encoding, &self.states[&known.topic]));
                out.extend(frames.map(Step::Send));
            }
            "running" => self.running = rest.split_whitespace().map(str::to_owned).collect(),
            "gone" => self.gone.push(rest.to_owned()),
            "left" => self.look(|session, now, view| session.left(now, view, &mut out)),
            "replay" => {
                let mut frames = Vec::new();
                self.dialect
                    .replay(self.now.unix, self.session.encoding(), &self.history, &mut frames);
                out.extend(frames.into_iter().map(Step::Send));
            }
            "welcome" => {
                let welcome = self.greeting(rest);
                let frame = self
                    .dialect
                    .welcome(self.now.unix, self.session.encoding(), &welcome);
                out.extend(frame.map(Step::Send));
            }
            "notice" => self.session.notice(self.now, &notice(rest)?, &mut out),
            "close" => {
                let code: u16 = rest.parse().map_err(|_| "close with which code?")?;
                let why = [
                    Close::DRAIN,
                    Close::SLOW,
                    Close::NORMAL,
                    Close::INTERNAL,
                    Close::FLOOD,
                ]
                .into_iter()
                .find(|close| close.code == code);
                self.session
                    .farewell(self.now, &why.ok_or("no such close")?, &mut out);
            }
            _ => return Err(format!("the bus does not say `{verb}`")),
        }
        Ok(self.performed(out))
    }

    fn greeting(&self, words: &str) -> Welcome {
        let recovered = words.split(' ').find_map(|word| word.strip_prefix("recovered="));
        Welcome {
            session: "01J00000000000000000000000".into(),
            space: self.space.clone(),
            offset: self.offset(),
            recovered: recovered.map(|value| value == "true"),
            history: !words.contains("history=false"),
        }
    }

    fn offset(&self) -> Offset {
        Offset {
            event_epoch: 0xe,
            event_seq: self.seq,
            state_epoch: 0x5,
            state_seq: self.seq,
        }
    }

    fn event(&mut self, class: &str, rest: &str) -> Result<Event, String> {
        let (topic, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        self.seq += 1;
        let mut event = Event {
            class: if class == "state" {
                Class::State
            } else {
                Class::Event
            },
            topic: topic.into(),
            time: self.now.unix,
            seq: self.seq,
            offset: self.offset(),
            body: Body::default(),
            from: None,
        };
        let mut binary = false;
        // Keys end where the first word without `=` begins.
        loop {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once('=') {
                Some(("seq", seq)) => event.seq = seq.parse().map_err(|_| "seq is a number")?,
                Some(("type", kind)) => event.body.content_type = Some(kind.into()),
                Some(("from", from)) => event.from = Some(from.into()),
                _ if word == "hex" => binary = true,
                _ => break,
            }
            rest = after;
        }
        event.body.bytes = match binary {
            true => unhex(rest).ok_or("hex digits expected")?.into(),
            false => rest.to_owned().into(),
        };
        Ok(event)
    }
}

fn reply(verb: &str, rest: &str) -> Option<Reply> {
    let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let id = CallId(id.strip_prefix('#')?.parse().ok()?);
    let body = Body::json(rest.to_owned());
    let answer = match verb {
        "ack" => Answer::Ack(body),
        "progress" => Answer::Progress(body),
        "done" => match rest.strip_prefix("type=").and_then(|rest| rest.split_once(' ')) {
            Some((kind, text)) => Answer::Done(Body::typed(text.to_owned(), kind)),
            None => Answer::Done(body),
        },
        _ => {
            let (code, text) = rest.split_once(' ')?;
            let code = Code::ALL.into_iter().find(|known| known.name() == code)?;
            let (text, details) = text.split_once(" | ").unwrap_or((text, ""));
            Answer::Failed(Fault {
                details: Body::json(details.to_owned()),
                ..Fault::new(code, text)
            })
        }
    };
    Some(Reply { id, answer })
}

fn notice(words: &str) -> Result<Notice, String> {
    let (kind, text) = words.split_once(' ').unwrap_or((words, ""));
    Ok(match kind {
        "degraded" => Notice::Degraded(text.to_owned()),
        "restored" => Notice::Restored(text.to_owned()),
        "gap" => Notice::Gap(text.parse().map_err(|_| "gap of how many?")?),
        "unconfirmed" => Notice::NotConfirmed(text.to_owned()),
        _ => return Err(format!("no such notice: {kind}")),
    })
}

fn shown(body: &Body) -> String {
    match std::str::from_utf8(&body.bytes) {
        Ok(text) => text.replace('\n', "\\n"),
        Err(_) => format!("x {}", hex(&body.bytes)),
    }
}

fn written(step: &Step) -> String {
    match step {
        Step::Call(command) => {
            let mut line = format!(
                "^ command {} {} #{}",
                command.service, command.action, command.id.0
            );
            if let Some(id) = &command.correlation {
                line += &format!(" correlation={id}");
            }
            if let Some(parent) = &command.traceparent {
                line += &format!(" traceparent={parent}");
            }
            format!("{line} {}", shown(&command.body))
        }
        Step::Look(None) => "^ look".to_owned(),
        Step::Look(Some(question)) => format!("^ look {question}"),
        Step::Merge(Merge {
            topic,
            keys,
            said,
            voided_by,
            gather,
        }) => {
            let mut line = format!("^ merge {topic}");
            if *gather {
                line += " gather";
            }
            if let Some(topic) = voided_by {
                line += &format!(" voided_by={topic}");
            }
            line += &format!(" {}", String::from_utf8_lossy(keys));
            if !said.is_empty() {
                line += &format!(" said={}", String::from_utf8_lossy(said));
            }
            line
        }
        Step::Cancel(id) => format!("^ cancel #{}", id.0),
        Step::Append(append) => {
            let class = if append.class == Class::State {
                "state"
            } else {
                "event"
            };
            format!("^ {class} {} {}", append.topic, shown(&append.body))
        }
        Step::Send(frame) => match (frame, std::str::from_utf8(frame.bytes())) {
            (Frame::Text(_), Ok(text)) => format!("> {}", text.replace('\n', "\\n")),
            (Frame::Text(bytes), Err(_)) => panic!("a text frame that is not UTF-8: {bytes:?}"),
            (Frame::Binary(_), Ok(text)) if !text.contains(char::is_control) => format!("> {text}"),
            (Frame::Binary(bytes), _) => format!(">x {}", hex(bytes)),
        },
        Step::Close(close) => format!("! close {} {}", close.code, close.reason)
            .trim_end()
            .to_owned(),
    }
}
