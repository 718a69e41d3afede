# SPDX-License-Identifier: Apache-2.0
"""The main corridor, end to end: a client, batond, a next hop."""
import email
import email.policy
import smtplib

import pytest

from harness import Baton, insecure, wait_until
from sink import Sink


def fates(b, event, count=0, **match):
    """The log lines that match: all there are now, or as soon as there are `count`. The log is written after
    the sink has the message, and in blocks: what must be in it is waited for."""
    look = lambda: [r for r in b.records(event) if all(str(r.get(k)) == str(v) for k, v in match.items())]
    return wait_until(lambda: len(look()) >= count and look(), what=f"{count} lines {event} {match}") if count else look()


def queue_is_empty(b):
    return not b.ctl_json("queue", "ls")


def test_a_message_arrives_byte_for_byte(baton, sink):
    body = "line\r\n.dot\r\n..two\r\n\r\nlast, with \u00e9\r\n"
    ident = baton.send(body=body, ident="one")
    m = sink.wait(1)[0]
    assert m.sender == "a@source.test" and m.recipients == ["b@dest.test"]
    assert m.data.split(b"\r\n\r\n", 1)[1] == body.encode()
    assert m.header("Received").startswith("from client.test") and ident in m.header("Received")
    assert m.data.split(b"\r\n\r\n", 1)[0].endswith(b"X-Test-Id: one\r\nDate: " + m.header("Date").encode()) or \
        b"X-Test-Id: one" in m.data
    wait_until(lambda: queue_is_empty(baton), what="an empty queue")
    done = fates(baton, "delivered", 1, id=ident)
    assert len(done) == 1 and done[0]["to"] == "b@dest.test" and done[0]["ip"] == "127.0.0.1"


def test_relayed_mail_keeps_every_byte(sink):
    """Service mx adds a Received field and nothing else."""
    relay = 'relay_domains:\n  - {domain: dest.test, next_hop: ["[127.0.0.1]:%d"], recipients: any}\n' % sink.port
    with Baton(extra=relay) as b:
        data = b"subject: odd\r\nBcc: hidden@x.test\r\nReturn-Path: <z@z.test>\r\n\r\nx\r\n"
        with b.raw("mx") as c:
            c.read()
            c.ask("EHLO client.test")
            assert c.ask("MAIL FROM:<>").startswith("250")
            assert c.ask("RCPT TO:<b@dest.test>").startswith("250")
            assert c.ask("RCPT TO:<b@elsewhere.test>").startswith("550 5.7.1")
            assert c.ask("DATA").startswith("354")
            assert c.ask(data + b".\r\n").startswith("250 2.0.0 queued as ")
        m = sink.wait(1)[0]
        assert m.data.endswith(data) and m.data.startswith(b"Received: from client.test")
        assert m.sender == ""


def test_many_recipients_of_many_domains(baton, sink):
    to = [f"u{i}@d{i % 3}.test" for i in range(9)]
    baton.send(to=to)
    messages = sink.wait(3)
    assert sorted(r for m in messages for r in m.recipients) == sorted(to)
    assert len(messages) == 3  # one unit a routing domain, several recipients a transaction


def test_a_refused_recipient_bounces_and_the_others_arrive(baton, sink):
    sink.rcpt = lambda a: "550 5.1.1 no such user" if a.startswith("bad") else None
    ident = baton.send(to=["bad@dest.test", "good@dest.test"])
    dsn = sink.wait_for(lambda m: m.sender == "")
    assert dsn.recipients == ["a@source.test"]
    report = email.message_from_bytes(dsn.data, policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"
    parts = list(report.iter_parts())
    assert [p.get_content_type() for p in parts[:2]] == ["text/plain", "message/delivery-status"]
    status = parts[1].as_string()
    assert "Final-Recipient: rfc822; bad@dest.test" in status or "rfc822;bad@dest.test" in status
    assert "Status: 5.1.1" in status and "Action: failed" in status and "good@" not in status
    assert "no such user" in parts[0].get_content()
    assert sink.wait_for(lambda m: m.recipients == ["good@dest.test"])
    assert fates(baton, "bounced", 1, id=ident)[0]["to"] == "bad@dest.test"
    wait_until(lambda: queue_is_empty(baton), what="an empty queue")


def test_4xx_is_retried_and_then_arrives(baton, sink):
    tries = []
    sink.rcpt = lambda a: tries.append(a) or ("450 4.2.1 greylisted" if len(tries) < 3 else None)
    ident = baton.send()
    row = wait_until(lambda: [r for r in baton.ctl_json("queue", "ls") if r["recipients"][0]["attempts"]], what="a row")[0]
    assert row["id"].startswith(ident) and row["recipients"][0]["state"] == "deferred"
    assert "greylisted" in row["recipients"][0]["last_reply"]
    sink.wait(1)
    assert baton.wait_log("delivered", id=ident)
    assert len(tries) == 3 and len(fates(baton, "deferred", 2, id=ident)) == 2


def test_552_at_rcpt_counts_as_4xx(baton, sink):
    tries = []
    sink.rcpt = lambda a: tries.append(a) or ("552 too many" if len(tries) < 2 else None)
    baton.send()
    sink.wait(1)
    assert len(tries) == 2


def test_5xx_at_connect_defers(baton, sink):
    sink.connect = lambda n: "554 5.7.1 your address is listed" if n < 3 else None
    ident = baton.send()
    sink.wait(1, 60)
    assert baton.wait_log("delivered", id=ident)
    assert fates(baton, "deferred", 1, id=ident) and not fates(baton, "bounced", id=ident)


def test_a_lost_reply_after_the_dot_is_a_possible_duplicate(sink):
    sink.dot = lambda m: "close-after" if len(sink.messages) == 0 else None
    with Baton(sink_port=sink.port, retry="{first: 1h, max: 4h, give_up: 1d}") as b:
        ident = b.send()
        r = b.wait_log("deferred", id=ident)
        assert r["possible_duplicate"] == "D7"
        # The line comes before the outcome is durable.
        wait_until(lambda: b.ctl_json("queue", "ls")[0]["recipients"][0]["state"] == "in_doubt", what="in doubt")
        doubts = lambda: b.ctl_json("status", check=False)[0]["queue"]["in_doubt"]
        wait_until(lambda: doubts() == 1, what="the count")
        assert b.stop() == 0
        b.start()
        wait_until(lambda: doubts() == 1, what="the count after a restart")


def test_mail_expires_with_a_dsn(sink):
    sink.rcpt = lambda a: "450 4.2.1 never" if a.startswith("b@") else None
    with Baton(sink_port=sink.port, retry="{first: 300ms, max: 500ms, give_up: 2s}") as b:
        ident = b.send()
        dsn = sink.wait_for(lambda m: m.sender == "")
        assert b"5.4.7" in dsn.data or b"4.4.7" in dsn.data
        assert fates(b, "expired", 1, id=ident)


def test_delay_warning(sink):
    sink.rcpt = lambda a: "450 4.2.1 later" if a.startswith("b@") else None
    with Baton(sink_port=sink.port,
               retry="{first: 300ms, max: 500ms, give_up: 1h, delay_warning: 1s}") as b:
        b.send()
        dsn = sink.wait_for(lambda m: m.sender == "")
        assert b"Action: delayed" in dsn.data
        wait_until(lambda: len(fates(b, "deferred")) > 6, what="more attempts")
        assert len([m for m in sink.messages if m.sender == ""]) == 1


@pytest.mark.parametrize("notify,kinds", [("NEVER", []), ("FAILURE", ["failed"]), ("SUCCESS", [])])
def test_notify_is_obeyed_on_failure(baton, sink, notify, kinds):
    sink.rcpt = lambda a: "550 5.1.1 no" if a.startswith("b@") else None
    ident = baton.send(rcpt_options=[f"NOTIFY={notify}"])
    baton.wait_log("bounced", id=ident)
    wait_until(lambda: queue_is_empty(baton), what="an empty queue")
    actions = [line.split(b": ")[1].decode() for m in sink.messages
               for line in m.data.split(b"\r\n") if line.startswith(b"Action:")]
    assert actions == kinds


def test_success_is_relayed_where_the_hop_has_no_dsn():
    with Sink(extensions=["PIPELINING", "8BITMIME"]) as sink, Baton(sink_port=sink.port) as b:
        b.send(rcpt_options=["NOTIFY=SUCCESS", "ORCPT=rfc822;b@dest.test"], mail_options=["ENVID=abc+3Dd", "RET=HDRS"])
        dsn = sink.wait_for(lambda m: m.sender == "")
        assert b"Action: relayed" in dsn.data and b"Original-Envelope-Id: abc=d" in dsn.data


def test_dsn_parameters_are_passed_on(baton, sink):
    baton.send(rcpt_options=["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;b+2Bx@dest.test"], mail_options=["ENVID=q1", "RET=HDRS"])
    m = sink.wait(1)[0]
    assert "RET=HDRS" in m.params["MAIL"] and "ENVID=q1" in m.params["MAIL"]
    assert "NOTIFY=SUCCESS,DELAY" in m.params["b@dest.test"] and "ORCPT=rfc822;b+2Bx@dest.test" in m.params["b@dest.test"]


def test_never_a_bounce_to_a_bounce(baton, sink):
    sink.rcpt = lambda a: "550 5.1.1 no"
    baton.send(sender="")
    baton.wait_log("bounced")
    wait_until(lambda: queue_is_empty(baton), what="an empty queue")
    assert not [m for m in sink.messages if "source" in str(m.recipients)]


def test_a_dead_next_hop_defers_and_recovers():
    hop = Sink().start()
    port = hop.port
    hop.stop()
    with Baton(sink_port=port) as b:
        ident = b.send()
        r = b.wait_log("deferred", id=ident)
        assert "refused" in r["reply"]
        with Sink(port=port) as sink:
            sink.wait(1, 60)


def test_starttls_to_the_next_hop(tmp_path):
    from harness import make_certificate
    with Sink(tls=make_certificate(str(tmp_path), "sink.test")) as sink, Baton(sink_port=sink.port) as b:
        ident = b.send()
        assert sink.wait(1)[0].tls
        assert b.wait_log("delivered", id=ident)["tls"].startswith("TLSv1.")


def test_broken_starttls_falls_back_to_clear(tmp_path):
    from harness import make_certificate
    with Sink(tls=make_certificate(str(tmp_path), "sink.test")) as sink:
        sink._context = lambda: (_ for _ in ()).throw(ConnectionError())
        with Baton(sink_port=sink.port) as b:
            b.send()
            assert not sink.wait(1)[0].tls


def test_verify_refuses_a_stranger(tmp_path):
    from harness import make_certificate
    with Sink(tls=make_certificate(str(tmp_path), "sink.test")) as sink:
        extra = f'routes:\n  - {{domain: "*", next_hop: ["[127.0.0.1]:{sink.port}"], tls: verify}}\n'
        with Baton(extra=extra) as b:
            ident = b.send()
            r = b.wait_log("deferred", id=ident)
            assert "TLS" in r["reply"] or "certificate" in r["reply"]
            assert not sink.messages


def test_8bit_and_smtputf8_bounce_where_the_hop_lacks_them():
    with Sink(extensions=["PIPELINING"]) as sink, Baton(sink_port=sink.port) as b:
        ident = b.send(body="gr\u00fc\u00dfe\r\n", mail_options=["BODY=8BITMIME"])
        assert b.wait_log("bounced", id=ident)["dsn"] == "5.6.3"
        with b.smtp() as s:
            s.ehlo()
            s.mail("a@source.test", ["SMTPUTF8", "BODY=8BITMIME"])
            s.rcpt("b@dest.test")
            code, text = s.data("Subject: \u00fc\r\n\r\nx\r\n".encode())
            assert code == 250
        assert b.wait_log("bounced", id=text.decode().rsplit(" ", 1)[1])["dsn"] == "5.6.7"


def test_8bit_is_converted_when_asked():
    with Sink(extensions=["PIPELINING"]) as sink, Baton(sink_port=sink.port, extra="delivery: {eight_bit: convert}\n") as b:
        b.send(body="gr\u00fc\u00dfe\r\n", mail_options=["BODY=8BITMIME"])
        m = sink.wait(1)[0]
        assert not [c for c in m.data if c > 127]


def test_size_is_checked_before_sending():
    with Sink(extensions=["PIPELINING", "SIZE 1000"]) as sink, Baton(sink_port=sink.port) as b:
        ident = b.send(body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 40)
        assert b.wait_log("bounced", id=ident)["dsn"] == "5.3.4"
        assert not [c for c in sink.commands if c[1].startswith("DATA") and c[0] == 1]


def test_a_big_message_goes_through(baton, sink):
    body = ("0123456789" * 7 + "\r\n") * 140_000  # 10 MB: written while it arrives, read back in windows
    baton.send(body=body, ident="big")
    m = sink.wait(1, 60)[0]
    assert m.data.split(b"\r\n\r\n", 1)[1] == body.encode()


def test_bdat_body_without_final_crlf(baton, sink):
    with baton.raw() as c:
        c.read()
        assert "CHUNKING" in c.ask("EHLO client.test")
        c.ask("MAIL FROM:<a@source.test>")
        c.ask("RCPT TO:<b@dest.test>")
        c.send(b"BDAT 17\r\nSubject: x\r\n\r\nabc")
        assert c.read().startswith("250")
        assert c.ask(b"BDAT 3 LAST\r\ndef").startswith("250")
    m = sink.wait(1)[0]
    assert m.data.split(b"\r\n\r\n", 1)[1] in (b"abcdef", b"abcdef\r\n")


def test_mail_survives_a_restart(sink):
    sink.rcpt = lambda a: "450 4.2.1 not yet"
    b = Baton(sink_port=sink.port)
    with b:
        ident = b.send(ident="kept")
        b.wait_log("deferred", id=ident)
        assert b.stop() == 0
        sink.rcpt = lambda a: None
        b.start()
        assert sink.wait(1)[0].id() == "kept"
        assert b.ctl_json("trace", ident)[0]["event"] == "received"


def test_auth_and_tls(sink):
    with Baton(sink_port=sink.port, users={"anna": "pencil"}) as b:
        with b.smtp("submission") as s:
            s.ehlo()
            assert not s.has_extn("auth")
            s.starttls(context=insecure())
            s.ehlo()
            assert s.has_extn("auth")
            with pytest.raises(smtplib.SMTPAuthenticationError):
                s.login("anna", "wrong")
            s.login("anna", "pencil")
            s.sendmail("anna@source.test", ["b@dest.test"], "Subject: x\r\n\r\nx\r\n")
        with b.smtps() as s:
            s.login("anna", "pencil")
            s.sendmail("anna@source.test", ["c@dest.test"], "Subject: y\r\nBcc: z@z.test\r\n\r\ny\r\n")
        messages = sink.wait(2)
        second = [m for m in messages if m.recipients == ["c@dest.test"]][0]
        assert second.header("Bcc") is None and second.header("Date") and second.header("Message-ID")
        assert "ESMTPSA" in second.header("Received")
        assert "pencil" not in open(b.log_path).read()


def test_not_an_open_relay(sink):
    """From an address that is no relay client, only relay domains are taken."""
    extra = "relay_clients: [\"192.0.2.0/24\"]\n"
    with Baton(sink_port=sink.port, extra=extra) as b:
        with b.raw("relay") as c:
            c.read()
            c.ask("EHLO client.test")
            assert c.ask("MAIL FROM:<a@source.test>")[:3] in ("530", "250", "550")
            assert c.ask("RCPT TO:<b@dest.test>")[:1] == "5"
