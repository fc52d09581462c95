//! What an idle connection holds: resident memory of a server before and after thousands connect.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::nats::NatsSocket;
use crate::servers::{Server, Servers};
use crate::socket::Socket;
use crate::socketio::IoSocket;
use crate::{Outcome, Plan, SPACE};

/// Bytes of resident memory for each connection.
pub(crate) struct Idle {
    pub(crate) gateway: Option<f64>,
    pub(crate) nats: f64,
}

/// Connections opened at once: enough to be quick, few enough to leave no mark of their own.
const AT_ONCE: usize = 32;

/// Who the idle clients are.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// Voice clients of the gateway.
    Gateway,
    /// Subscribers of nats-server.
    Nats,
    /// Socket.IO clients, of whomever.
    SocketIo,
}

/// Measures both servers, one after the other.
pub(crate) async fn measure(plan: &Plan, servers: &Servers) -> Outcome<Idle> {
    let gateway = match &servers.gateway {
        Some(server) => Some(per_connection(plan, server, Side::Gateway).await?),
        None => None,
    };
    let nats = per_connection(plan, &servers.nats, Side::Nats).await?;
    Ok(Idle { gateway, nats })
}

/// Bytes of resident memory that each idle client adds to a server.
pub(crate) async fn per_connection(plan: &Plan, server: &Server, side: Side) -> Outcome<f64> {
    // what a server sets up once at its first clients is no cost of a connection
    drop(connect(AT_ONCE, server, side).await?);
    sleep(Duration::from_secs(1)).await;
    let before = server.resident()?;
    let mut clients = connect(plan.idle, server, side).await?;
    sleep(Duration::from_secs(2)).await;
    let after = server.resident()?;
    // a client that ended would make the figure too small
    if let Some(ended) = clients.try_join_next() {
        ended??;
        return Err("an idle connection ended".into());
    }
    Ok((after - before) / plan.idle as f64)
}

/// Opens connections and keeps each alive in a task that answers pings; dropping the set closes them.
async fn connect(count: usize, server: &Server, side: Side) -> Outcome<JoinSet<Outcome<()>>> {
    let address = server.websocket;
    let mut open = JoinSet::new();
    let mut opening = JoinSet::new();
    let mut begun = 0;
    loop {
        while begun < count && opening.len() < AT_ONCE {
            begun += 1;
            opening.spawn(async move {
                Outcome::Ok(match side {
                    Side::Gateway => {
                        Client::Gateway(Socket::open(address, &format!("/events/{SPACE}")).await?)
                    }
                    Side::Nats => {
                        let mut client = NatsSocket::open(address).await?;
                        client.subscribe("bench.idle").await?;
                        Client::Nats(client)
                    }
                    Side::SocketIo => Client::SocketIo(IoSocket::open(address).await?),
                })
            });
        }
        let Some(client) = opening.join_next().await else {
            return Ok(open);
        };
        open.spawn(client??.stay());
    }
}

enum Client {
    Gateway(Socket),
    Nats(NatsSocket),
    SocketIo(IoSocket),
}

impl Client {
    async fn stay(self) -> Outcome<()> {
        match self {
            Self::Gateway(mut socket) => loop {
                socket.next().await?;
            },
            Self::Nats(mut client) => loop {
                client.next().await?;
            },
            Self::SocketIo(mut client) => loop {
                client.next().await?;
            },
        }
    }
}
