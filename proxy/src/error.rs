//! Faults, by who is to blame, and the one table of what each of them means.
//!
//! Owns [`ClientFault`], [`UpstreamFault`], [`PluginFault`], [`ResourceFault`], their sum [`Fault`] and [`Row`]: status, keep or
//! close, log level, whether another server may be tried, metric label. Operator faults (configuration) are texts with a
//! file and a line and live with the configuration; our own mistakes are assertions.
//!
//! Must not: hold text that is made before it is logged, allocate, or know how an answer is written.
//! Invariant (tested): `reason` is unique over all faults, snake_case, and fits a metric label.
#![forbid(unsafe_code)]

use core::fmt;

/// A fault of any side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client sent something wrong, or stopped sending.
    Client(ClientFault),
    /// The upstream sent something wrong, or nothing.
    Upstream(UpstreamFault),
    /// A plugin broke its contract.
    Plugin(PluginFault),
    /// A bound of the gateway was reached.
    Resource(ResourceFault),
}

/// What a fault means: one row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The status of the answer, as long as no response byte has left.
    pub status: u16,
    /// Whether the client's connection may be used again after the answer, provided that the request was read to its end.
    pub keep_alive: bool,
    /// How loud the log line is.
    pub level: Level,
    /// Whether another server may be tried, provided that the request can be replayed and no response byte has left.
    pub may_retry: bool,
    /// Metric label and log reason.
    pub reason: &'static str,
    /// One clause for people.
    pub text: &'static str,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The gateway or a plugin is broken.
    Error,
    /// The operator should look.
    Warn,
    /// Something unusual from outside.
    Info,
    /// Expected in ordinary traffic.
    Debug,
}

const KEEP: bool = true;
const CLOSE: bool = false;
const RETRY: bool = true;
const FINAL: bool = false;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident { $($variant:ident $status:literal $keep:ident $level:ident $retry:ident $reason:literal $text:literal;)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $fault {
            $(#[doc = concat!($text, " (", $status, ").")] $variant,)*
        }

        impl $fault {
            /// Every variant, in the order of the table.
            pub const ALL: &[$fault] = &[$($fault::$variant,)*];

            /// The row of this fault.
            pub const fn row(self) -> Row {
                match self {
                    $($fault::$variant => Row {
                        status: $status, keep_alive: $keep, level: Level::$level, may_retry: $retry, reason: $reason, text: $text,
                    },)*
                }
            }
        }

        impl fmt::Display for $fault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.row().text)
            }
        }

        impl core::error::Error for $fault {}
    )*};
}

// variant, status, connection, log level, retry, reason, text
faults! {
    /// What a client did wrong.
    ClientFault {
        // Start line.
        NotHttp 400 CLOSE Debug FINAL "not_http" "the bytes are not HTTP";
        Http2Preface 400 CLOSE Info FINAL "http2_preface" "HTTP/2 was spoken on an HTTP/1.1 port";
        LeadingEmptyLines 400 CLOSE Info FINAL "leading_empty_lines" "more than one empty line stands before the request line";
        BadMethod 400 CLOSE Info FINAL "bad_method" "the method is not a token followed by one space";
        MethodTooLong 501 CLOSE Info FINAL "method_too_long" "the method is longer than any that is known";
        BadRequestLine 400 CLOSE Info FINAL "bad_request_line" "the request line is not three parts with one space between them";
        BadTarget 400 CLOSE Info FINAL "bad_target" "the target holds a byte that no URI holds, or has no known form";
        TargetTooLong 414 CLOSE Info FINAL "target_too_long" "the target is longer than the limit";
        BadScheme 400 CLOSE Info FINAL "bad_scheme" "the scheme of the target is not http or https";
        BadAuthority 400 CLOSE Info FINAL "bad_authority" "the authority of the target is not a valid host and port";
        AsteriskWithoutOptions 400 CLOSE Info FINAL "asterisk_without_options" "the target * goes with OPTIONS only";
        BadConnectTarget 400 CLOSE Info FINAL "bad_connect_target" "the target of CONNECT is not host:port";
        ConnectWithBody 400 CLOSE Info FINAL "connect_with_body" "CONNECT announces a body";
        MissingVersion 400 CLOSE Info FINAL "missing_version" "the request line has no version";
        BadVersion 400 CLOSE Info FINAL "bad_version" "the version is malformed";
        UnsupportedVersion 505 CLOSE Info FINAL "unsupported_version" "the major version is not 1";
        // Fields.
        BareLineFeed 400 CLOSE Info FINAL "bare_line_feed" "a line ends with LF alone";
        BareCarriageReturn 400 CLOSE Info FINAL "bare_carriage_return" "a CR is not followed by LF";
        ControlByte 400 CLOSE Info FINAL "control_byte" "a field value holds a control byte";
        ObsFold 400 CLOSE Info FINAL "obs_fold" "a field is folded over several lines";
        SpaceBeforeFirstField 400 CLOSE Info FINAL "space_before_first_field" "the line after the start line begins with a blank";
        SpaceBeforeColon 400 CLOSE Info FINAL "space_before_colon" "a blank stands in a field name or before its colon";
        EmptyFieldName 400 CLOSE Info FINAL "empty_field_name" "a field has no name";
        BadFieldName 400 CLOSE Info FINAL "bad_field_name" "a field name is not a token";
        MissingColon 400 CLOSE Info FINAL "missing_colon" "a field line has no colon";
        UnderscoreInFieldName 400 CLOSE Info FINAL "underscore_in_field_name" "a field name holds an underscore";
        TooManyConnectionOptions 400 CLOSE Info FINAL "too_many_connection_options" "Connection lists more options than anyone needs";
        FieldTooLong 431 CLOSE Info FINAL "field_too_long" "a field line is longer than the limit";
        TooManyFields 431 CLOSE Info FINAL "too_many_fields" "the head has more fields than the limit";
        HeadTooLarge 431 CLOSE Info FINAL "head_too_large" "the head is longer than the limit";
        MissingHost 400 CLOSE Info FINAL "missing_host" "the request has no Host";
        DuplicateHost 400 CLOSE Info FINAL "duplicate_host" "Host is given more than once";
        BadHost 400 CLOSE Info FINAL "bad_host" "Host is not a valid host and port";
        HostDiffers 400 CLOSE Info FINAL "host_differs" "Host differs from the authority of the target";
        // Framing.
        BadContentLength 400 CLOSE Info FINAL "bad_content_length" "Content-Length is not a decimal number";
        ContentLengthTooLarge 400 CLOSE Info FINAL "content_length_too_large" "Content-Length does not fit 63 bits";
        ConflictingContentLength 400 CLOSE Warn FINAL "conflicting_content_length" "Content-Length is given with different values";
        RepeatedContentLength 400 CLOSE Info FINAL "repeated_content_length" "Content-Length is given more than once";
        LengthAndTransferEncoding 400 CLOSE Warn FINAL "length_and_transfer_encoding" "Content-Length and Transfer-Encoding are both given";
        TransferEncodingInHttp10 400 CLOSE Warn FINAL "transfer_encoding_in_http10" "an HTTP/1.0 message has Transfer-Encoding";
        RepeatedTransferEncoding 400 CLOSE Warn FINAL "repeated_transfer_encoding" "Transfer-Encoding or the chunked coding is given more than once";
        BadTransferEncoding 400 CLOSE Warn FINAL "bad_transfer_encoding" "Transfer-Encoding is malformed";
        ChunkedNotLast 400 CLOSE Warn FINAL "chunked_not_last" "the last transfer coding is not chunked";
        UnknownTransferCoding 501 CLOSE Info FINAL "unknown_transfer_coding" "a transfer coding other than chunked is used";
        // Chunked bodies.
        BadChunkSize 400 CLOSE Info FINAL "bad_chunk_size" "a chunk size is not a hexadecimal number";
        ChunkSizeTooLarge 400 CLOSE Info FINAL "chunk_size_too_large" "a chunk size does not fit 63 bits or has too many digits";
        BadChunkExtension 400 CLOSE Info FINAL "bad_chunk_extension" "a chunk extension is malformed";
        ChunkExtensionsTooLarge 400 CLOSE Info FINAL "chunk_extensions_too_large" "the chunk extensions are longer than the limit";
        BadChunkLineEnd 400 CLOSE Info FINAL "bad_chunk_line_end" "a chunk size line does not end with CRLF";
        BadChunkDataEnd 400 CLOSE Info FINAL "bad_chunk_data_end" "the data of a chunk are not followed by CRLF";
        BadTrailer 400 CLOSE Info FINAL "bad_trailer" "a trailer field is malformed";
        TrailersTooLarge 431 CLOSE Info FINAL "trailers_too_large" "the trailer section is longer than the limit";
        // The path, by policy.
        NulInPath 400 CLOSE Info FINAL "nul_in_path" "the path holds %00";
        PathAboveRoot 400 CLOSE Info FINAL "path_above_root" "the path climbs above its root";
        DotSegmentInPath 400 CLOSE Info FINAL "dot_segment_in_path" "the path holds a dot segment, or hides one";
        SlashInSegment 400 CLOSE Info FINAL "slash_in_segment" "the path holds %2f";
        BackslashInPath 400 CLOSE Info FINAL "backslash_in_path" "the path holds a backslash";
        EmptySegmentInPath 400 CLOSE Info FINAL "empty_segment_in_path" "the path holds an empty segment";
        OverlongUtf8InPath 400 CLOSE Info FINAL "overlong_utf8_in_path" "the path holds overlong UTF-8";
        BadEscapeInPath 400 CLOSE Info FINAL "bad_escape_in_path" "a % in the path is not followed by two hexadecimal digits";
        // The exchange.
        HeadTimeout 408 CLOSE Info FINAL "head_timeout" "the head did not arrive in time";
        BodyTimeout 408 CLOSE Info FINAL "body_timeout" "the body did not arrive in time";
        BodyTooLarge 413 CLOSE Info FINAL "body_too_large" "the body is longer than the limit";
        BodyIncomplete 400 CLOSE Info FINAL "body_incomplete" "the client closed before the end of the body";
        ClientClosed 499 CLOSE Info FINAL "client_closed" "the client closed before it had its response";
        WriteStalled 408 CLOSE Info FINAL "write_stalled" "the client did not take its response in time";
        HeadIncomplete 400 CLOSE Debug FINAL "head_incomplete" "the client closed before the end of the head";
        MethodNotAllowed 405 KEEP Info FINAL "method_not_allowed" "the method is not allowed here";
        ExpectationFailed 417 CLOSE Info FINAL "expectation_failed" "Expect asks for something other than 100-continue";
        NoRoute 404 KEEP Debug FINAL "no_route" "no route matches";
        Misdirected 421 CLOSE Info FINAL "misdirected" "this listener does not serve that host";
        LoopDetected 508 CLOSE Warn FINAL "loop_detected" "the request passed through this gateway before";
    }

    /// What an upstream did wrong.
    UpstreamFault {
        // Status line.
        BadStatusLine 502 KEEP Warn FINAL "upstream_bad_status_line" "the status line is malformed";
        BadStatus 502 KEEP Warn FINAL "upstream_bad_status" "the status is not between 100 and 599";
        UnsupportedVersion 502 KEEP Warn FINAL "upstream_unsupported_version" "the upstream does not speak HTTP/1";
        UnexpectedUpgrade 502 KEEP Warn FINAL "upstream_unexpected_upgrade" "101 came although no upgrade was asked for";
        TooManyInterim 502 KEEP Warn FINAL "upstream_too_many_interim" "more interim responses came than the limit";
        // Fields.
        BareLineFeed 502 KEEP Warn FINAL "upstream_bare_line_feed" "a line ends with LF alone";
        BareCarriageReturn 502 KEEP Warn FINAL "upstream_bare_carriage_return" "a CR is not followed by LF";
        ControlByte 502 KEEP Warn FINAL "upstream_control_byte" "a field value or the reason holds a control byte";
        ObsFold 502 KEEP Warn FINAL "upstream_obs_fold" "a field is folded over several lines";
        SpaceBeforeFirstField 502 KEEP Warn FINAL "upstream_space_before_first_field" "the line after the status line begins with a blank";
        SpaceBeforeColon 502 KEEP Warn FINAL "upstream_space_before_colon" "a blank stands in a field name or before its colon";
        EmptyFieldName 502 KEEP Warn FINAL "upstream_empty_field_name" "a field has no name";
        BadFieldName 502 KEEP Warn FINAL "upstream_bad_field_name" "a field name is not a token";
        MissingColon 502 KEEP Warn FINAL "upstream_missing_colon" "a field line has no colon";
        UnderscoreInFieldName 502 KEEP Warn FINAL "upstream_underscore_in_field_name" "a field name holds an underscore";
        TooManyConnectionOptions 502 KEEP Warn FINAL "upstream_too_many_connection_options" "Connection lists more options than anyone needs";
        FieldTooLong 502 KEEP Warn FINAL "upstream_field_too_long" "a field line is longer than the limit";
        TooManyFields 502 KEEP Warn FINAL "upstream_too_many_fields" "the head has more fields than the limit";
        HeadTooLarge 502 KEEP Warn FINAL "upstream_head_too_large" "the head is longer than the limit";
        // Framing.
        BadContentLength 502 KEEP Warn FINAL "upstream_bad_content_length" "Content-Length is not a decimal number";
        ContentLengthTooLarge 502 KEEP Warn FINAL "upstream_content_length_too_large" "Content-Length does not fit 63 bits";
        ConflictingContentLength 502 KEEP Warn FINAL "upstream_conflicting_content_length" "Content-Length is given with different values";
        TransferEncodingInHttp10 502 KEEP Warn FINAL "upstream_transfer_encoding_in_http10" "an HTTP/1.0 response has Transfer-Encoding";
        RepeatedTransferEncoding 502 KEEP Warn FINAL "upstream_repeated_transfer_encoding" "Transfer-Encoding or the chunked coding is given more than once";
        BadTransferEncoding 502 KEEP Warn FINAL "upstream_bad_transfer_encoding" "Transfer-Encoding is malformed";
        ChunkedNotLast 502 KEEP Warn FINAL "upstream_chunked_not_last" "the last transfer coding is not chunked";
        UnknownTransferCoding 502 KEEP Warn FINAL "upstream_unknown_transfer_coding" "a transfer coding other than chunked is used";
        // Chunked bodies.
        BadChunkSize 502 CLOSE Warn FINAL "upstream_bad_chunk_size" "a chunk size is not a hexadecimal number";
        ChunkSizeTooLarge 502 CLOSE Warn FINAL "upstream_chunk_size_too_large" "a chunk size does not fit 63 bits or has too many digits";
        BadChunkExtension 502 CLOSE Warn FINAL "upstream_bad_chunk_extension" "a chunk extension is malformed";
        ChunkExtensionsTooLarge 502 CLOSE Warn FINAL "upstream_chunk_extensions_too_large" "the chunk extensions are longer than the limit";
        BadChunkLineEnd 502 CLOSE Warn FINAL "upstream_bad_chunk_line_end" "a chunk size line does not end with CRLF";
        BadChunkDataEnd 502 CLOSE Warn FINAL "upstream_bad_chunk_data_end" "the data of a chunk are not followed by CRLF";
        BadTrailer 502 CLOSE Warn FINAL "upstream_bad_trailer" "a trailer field is malformed";
        TrailersTooLarge 502 CLOSE Warn FINAL "upstream_trailers_too_large" "the trailer section is longer than the limit";
        // The exchange.
        NoServer 503 KEEP Warn FINAL "upstream_no_server" "no server of the upstream can be used";
        ConnectFailed 502 KEEP Warn RETRY "upstream_connect_failed" "the connection was refused or reset";
        ConnectTimeout 504 KEEP Warn RETRY "upstream_connect_timeout" "the connection was not made in time";
        SpokeFirst 502 KEEP Warn RETRY "upstream_spoke_first" "bytes of the upstream came before the request was sent";
        ClosedEarly 502 KEEP Warn RETRY "upstream_closed_early" "the upstream closed before its response began";
        WriteFailed 502 CLOSE Warn RETRY "upstream_write_failed" "the upstream did not take the request";
        WriteTimeout 504 CLOSE Warn FINAL "upstream_write_timeout" "the upstream did not take the request in time";
        FirstByteTimeout 504 CLOSE Warn FINAL "upstream_first_byte_timeout" "the response did not begin in time";
        HeadTruncated 502 KEEP Warn FINAL "upstream_head_truncated" "the upstream closed in the middle of the head";
        ReadTimeout 504 CLOSE Warn FINAL "upstream_read_timeout" "the response did not go on in time";
        Truncated 502 CLOSE Warn FINAL "upstream_truncated" "the upstream closed before the end of the body";
    }

    /// What a plugin did wrong. The answer is that of a link with `on_error = "closed"`.
    PluginFault {
        Aborted 500 KEEP Error FINAL "plugin_aborted" "a hook returned ABORTED";
        Panicked 500 KEEP Error FINAL "plugin_panicked" "a hook panicked";
        BadVerdict 500 KEEP Error FINAL "plugin_bad_verdict" "a hook returned a value that is no verdict";
        VerdictNotDeclared 500 KEEP Error FINAL "plugin_verdict_not_declared" "a hook returned a verdict that needs a capability it did not declare";
        VerdictOutOfPlace 500 KEEP Error FINAL "plugin_verdict_out_of_place" "a hook returned a verdict that is not possible there";
        BodyNotDeclared 500 KEEP Error FINAL "plugin_body_not_declared" "a hook asked for the body without having declared it";
        ResponseMissing 500 KEEP Error FINAL "plugin_response_missing" "a hook returned RESPOND without a response";
        TooManySuspended 500 KEEP Warn FINAL "plugin_too_many_suspended" "more exchanges of a worker wait for events than the limit allows";
        EditsTooLarge 500 KEEP Error FINAL "plugin_edits_too_large" "the edits of an exchange do not fit its arena";
    }

    /// Which bound of the gateway was reached.
    ResourceFault {
        SlotsExhausted 503 CLOSE Warn FINAL "slots_exhausted" "all slots of the worker are in use";
        TunnelsExhausted 503 KEEP Warn FINAL "tunnels_exhausted" "the limit of tunnels is reached";
        BuffersExhausted 503 CLOSE Warn FINAL "buffers_exhausted" "all relay buffers of the worker are in use";
        ConnectionsExhausted 503 CLOSE Warn FINAL "connections_exhausted" "the limit of connections is reached";
        ConnectionsOfPeerExhausted 503 CLOSE Warn FINAL "connections_of_peer_exhausted" "the limit of connections of one address is reached";
        UpstreamConnectionsExhausted 503 KEEP Warn FINAL "upstream_connections_exhausted" "no local port is left for a connection to the upstream";
        FilesExhausted 503 CLOSE Warn FINAL "files_exhausted" "the process or the system has no file descriptor or no socket memory left";
        HeadDoesNotFit 500 CLOSE Warn FINAL "head_does_not_fit" "the head to be sent does not fit its buffer";
        ExchangeTimeout 504 CLOSE Info FINAL "exchange_timeout" "the exchange took longer than its limit";
        Draining 503 CLOSE Info FINAL "draining" "the gateway is about to stop";
    }
}

impl UpstreamFault {
    /// Whether no byte of the request can have been sent.
    pub const fn is_before_the_request(self) -> bool {
        matches!(self, UpstreamFault::NoServer | UpstreamFault::ConnectFailed | UpstreamFault::ConnectTimeout | UpstreamFault::SpokeFirst)
    }
}

impl Fault {
    /// The row of this fault.
    pub const fn row(self) -> Row {
        match self {
            Fault::Client(fault) => fault.row(),
            Fault::Upstream(fault) => fault.row(),
            Fault::Plugin(fault) => fault.row(),
            Fault::Resource(fault) => fault.row(),
        }
    }

    /// Who is to blame: a metric label.
    pub const fn blame(self) -> &'static str {
        match self {
            Fault::Client(_) => "client",
            Fault::Upstream(_) => "upstream",
            Fault::Plugin(_) => "plugin",
            Fault::Resource(_) => "resource",
        }
    }

    /// Every fault of every side.
    pub fn all() -> impl Iterator<Item = Fault> {
        let client = ClientFault::ALL.iter().map(|fault| Fault::Client(*fault));
        let upstream = UpstreamFault::ALL.iter().map(|fault| Fault::Upstream(*fault));
        let plugin = PluginFault::ALL.iter().map(|fault| Fault::Plugin(*fault));
        let resource = ResourceFault::ALL.iter().map(|fault| Fault::Resource(*fault));
        client.chain(upstream).chain(plugin).chain(resource)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().text)
    }
}

impl core::error::Error for Fault {}

impl From<ClientFault> for Fault {
    fn from(fault: ClientFault) -> Fault {
        Fault::Client(fault)
    }
}

impl From<UpstreamFault> for Fault {
    fn from(fault: UpstreamFault) -> Fault {
        Fault::Upstream(fault)
    }
}

impl From<PluginFault> for Fault {
    fn from(fault: PluginFault) -> Fault {
        Fault::Plugin(fault)
    }
}

impl From<ResourceFault> for Fault {
    fn from(fault: ResourceFault) -> Fault {
        Fault::Resource(fault)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_is_unique_and_a_metric_label() {
        let mut seen = HashSet::new();
        for fault in Fault::all() {
            let reason = fault.row().reason;
            assert!(reason.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) && !reason.is_empty(), "{reason}");
            assert!(seen.insert(reason), "{reason} is given twice");
        }
    }

    #[test]
    fn every_status_belongs_to_its_side() {
        for fault in Fault::all() {
            let row = fault.row();
            let expected: &[u16] = match fault {
                Fault::Client(_) => &[400, 404, 405, 408, 413, 414, 417, 421, 431, 499, 501, 505, 508],
                Fault::Upstream(_) => &[502, 503, 504],
                Fault::Plugin(_) => &[500],
                Fault::Resource(_) => &[500, 503, 504],
            };
            assert!(expected.contains(&row.status), "{}: {}", row.reason, row.status);
        }
    }

    /// After a message whose end is not known, nothing on the connection can be trusted.
    #[test]
    fn a_malformed_request_always_closes() {
        for fault in ClientFault::ALL {
            let row = fault.row();
            assert!(!row.keep_alive || matches!(row.status, 404 | 405), "{}", row.reason);
        }
    }

    #[test]
    fn only_upstream_faults_are_retried() {
        for fault in Fault::all().filter(|fault| fault.row().may_retry) {
            assert_eq!(fault.blame(), "upstream", "{}", fault.row().reason);
        }
    }

    #[test]
    fn reasons_follow_the_names_of_the_variants() {
        for fault in Fault::all() {
            let debug = match fault {
                Fault::Client(fault) => format!("{fault:?}"),
                Fault::Upstream(fault) => format!("Upstream{fault:?}"),
                Fault::Plugin(fault) => format!("Plugin{fault:?}"),
                Fault::Resource(fault) => format!("{fault:?}"),
            };
            let mut snake = String::new();
            for (at, c) in debug.chars().enumerate() {
                if c.is_ascii_uppercase() && at > 0 {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            assert_eq!(snake, fault.row().reason);
        }
    }
}
