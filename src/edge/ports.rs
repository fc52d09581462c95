//! Binding: every configured address of a port or none, and an error that says who holds it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::bus::supervise::Holder;
use crate::config::Config;
use crate::dialect::{self, Dialect};

/// Connections the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// What the kernel may hold for one client that does not read.
const SEND_BUFFER: usize = 256 * 1024;

/// What a port is for.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// The gateway port: every dialect by path, raw JSON by its first byte.
    Gateway,
    /// A dialect's legacy port.
    Legacy(&'static dyn Dialect),
    /// Metrics and probes.
    Ops,
}

impl Purpose {
    /// Name for logs and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Legacy(dialect) => dialect.name(),
            Self::Ops => "ops",
        }
    }
}

/// A bound port: one listener for each address.
pub struct Port {
    /// What it is for.
    pub purpose: Purpose,
    /// The number, also where 0 was asked.
    pub number: u16,
    /// One for each address.
    pub listeners: Vec<TcpListener>,
}

/// Why a port could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another program has it.
    #[error(
        "port {number} on {address} is taken{holder}: stop that program, or set another port \
         ({key} in the configuration, {env} in the environment)"
    )]
    Taken {
        /// The port.
        number: u16,
        /// The address.
        address: IpAddr,
        /// ` by nginx (process 12)` where it can be told.
        holder: String,
        /// Configuration key.
        key: String,
        /// Environment variable.
        env: String,
    },
    /// Anything else.
    #[error("cannot listen on {address} port {number}: {source} ({key} and {bind} decide the address)")]
    Failed {
        /// The port.
        number: u16,
        /// The address.
        address: IpAddr,
        /// Configuration key of the port.
        key: String,
        /// That of its addresses.
        bind: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Binds every port of the configuration.
///
/// # Errors
/// The first port that cannot be had; none is left half bound.
pub fn bind_all(config: &Config) -> Result<Vec<Port>, PortError> {
    let mut ports = vec![bind(Purpose::Gateway, &config.gateway.bind, config.gateway.port)?];
    for dialect in dialect::ALL {
        let settings = config.dialects.get(dialect.name());
        if let Some(number) = settings.and_then(|settings| settings.port) {
            ports.push(bind(Purpose::Legacy(*dialect), &config.gateway.bind, number)?);
        }
    }
    ports.push(bind(Purpose::Ops, &config.ops.bind, config.ops.port)?);
    Ok(ports)
}

/// Binds one port on all addresses; 0 takes any free one, the same for all.
///
/// # Errors
/// [`PortError`].
pub fn bind(purpose: Purpose, addresses: &[IpAddr], number: u16) -> Result<Port, PortError> {
    let mut chosen = number;
    let mut listeners = Vec::new();
    for address in addresses {
        match listen(SocketAddr::new(*address, chosen)) {
            Ok(listener) => {
                chosen = listener.local_addr().map_or(chosen, |local| local.port());
                listeners.push(listener);
            }
            Err(source) if absent(&source) && address.is_ipv6() && addresses.len() > 1 => {
                tracing::debug!(%address, "no IPv6 here");
            }
            Err(source) => {
                let name = purpose.name();
                let key = format!("{name}.port");
                let taken = source.kind() == io::ErrorKind::AddrInUse;
                let holder = Holder::of(chosen).map_or(String::new(), |holder| format!(" by {holder}"));
                return Err(if taken {
                    let env = format!("GW_{}_PORT", name.to_uppercase());
                    PortError::Taken {
                        number: chosen,
                        address: *address,
                        holder,
                        key,
                        env,
                    }
                } else {
                    PortError::Failed {
                        number: chosen,
                        address: *address,
                        key,
                        bind: match purpose {
                            Purpose::Ops => "ops.bind",
                            Purpose::Gateway | Purpose::Legacy(_) => "gateway.bind",
                        },
                        source,
                    }
                });
            }
        }
    }
    Ok(Port {
        purpose,
        number: chosen,
        listeners,
    })
}

/// Whether the machine has no such address family.
fn absent(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // accepted sockets inherit these
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    let quiet = std::time::Duration::from_secs(30);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(quiet).with_interval(quiet / 3))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
