//! One client that asks and waits for its answer.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::{Outcome, PATIENCE};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket.
pub(crate) async fn open(port: u16, path: &str) -> Outcome<Socket> {
    let opening = connect_async(format!("ws://127.0.0.1:{port}{path}"));
    let (socket, _) = timeout(Duration::from_secs(20), opening).await??;
    Ok(socket)
}

/// One client of the voice dialect.
pub(crate) struct Talk {
    socket: Socket,
    asked: u64,
}

impl Talk {
    /// Connects and waits for the greeting.
    pub(crate) async fn open(port: u16) -> Outcome<Self> {
        let mut talk = Self {
            socket: open(port, "/events").await?,
            asked: 0,
        };
        talk.wait(|frame| frame["data"]["status"] == "connected").await?;
        Ok(talk)
    }

    /// The same in another space, where it hears nothing of the events of this one.
    pub(crate) async fn aside(port: u16) -> Outcome<Self> {
        let mut talk = Self::at(port, "/events/aside").await?;
        talk.wait(|frame| frame["data"]["status"] == "connected").await?;
        Ok(talk)
    }

    /// Comes back with an offset; returns whether it was recovered.
    pub(crate) async fn resume(port: u16, offset: &str) -> Outcome<(Self, bool)> {
        let mut talk = Self {
            socket: open(port, &format!("/events?since={offset}")).await?,
            asked: 0,
        };
        let greeting = talk.wait(|frame| frame["data"]["status"] == "connected").await?;
        Ok((talk, greeting["data"]["recovered"] == true))
    }

    /// Connects to any path and waits for nothing.
    pub(crate) async fn at(port: u16, path: &str) -> Outcome<Self> {
        Ok(Self {
            socket: open(port, path).await?,
            asked: 0,
        })
    }

    /// Sends a message as it is.
    pub(crate) async fn say(&mut self, message: &Value) -> Outcome<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// Sends a command; returns its id.
    pub(crate) async fn send(&mut self, kind: &str) -> Outcome<String> {
        self.asked += 1;
        let id = format!("ask-{}", self.asked);
        let text = json!({"type": kind, "data": {}, "id": id}).to_string();
        self.socket.send(Message::text(text)).await?;
        Ok(id)
    }

    /// The frame that answers a command.
    pub(crate) async fn answer(&mut self, id: &str) -> Outcome<Value> {
        self.wait(|frame| frame["id"] == id || frame["data"]["id"] == id)
            .await
    }

    /// Asks and returns the answer with the time it took.
    pub(crate) async fn ask(&mut self, kind: &str) -> Outcome<(Value, Duration)> {
        let begun = Instant::now();
        let id = self.send(kind).await?;
        let answer = self.answer(&id).await?;
        Ok((answer, begun.elapsed()))
    }

    /// The next frame of which something holds.
    pub(crate) async fn wait(&mut self, is: impl Fn(&Value) -> bool) -> Outcome<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout_at(deadline, self.socket.next()).await? {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(text.as_str())?;
                    if is(&frame) {
                        return Ok(frame);
                    }
                }
                Some(Ok(Message::Close(frame))) => return Err(format!("closed: {frame:?}").into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the connection ended".into()),
            }
        }
    }

    /// Reads on until the close frame; returns its code.
    pub(crate) async fn closed(mut self) -> Outcome<u16> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await? {
                Some(Ok(Message::Close(frame))) => return Ok(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(1006),
            }
        }
    }
}
