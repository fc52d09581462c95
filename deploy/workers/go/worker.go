// A worker to copy: the service `greeter` with the actions `greet` and `count`, for any nats.go since 1.11.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

const service = "greeter"

// Refused is an error that names its number in the contract; any other is 500.
type Refused struct {
	Code int
	Text string
}

func (refused Refused) Error() string { return refused.Text }

// Job is one command.
type Job struct {
	context.Context
	client *nats.Conn
	msg    *nats.Msg
	space  string
}

// Params reads the body.
func (job Job) Params(into any) error {
	if job.msg.Header.Get("Gw-Body") != "" {
		return Refused{413, "this worker takes no parameters above the broker's payload limit"}
	}
	if len(job.msg.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(job.msg.Data, into); err != nil {
		return Refused{400, "the parameters are no JSON object of this kind: " + err.Error()}
	}
	return nil
}

// Progress is an interim answer; an empty one is a sign of life.
func (job Job) Progress(body any) {
	answer := reply(job.msg, body)
	answer.Header.Set("Gw-Status", "progress")
	job.client.PublishMsg(answer)
}

// Event states a fact to everybody in the space who speaks the dialect; it returns when the fact is stored.
func (job Job) Event(dialect, topic string, body any) error {
	fact := nats.NewMsg(strings.Join([]string{"gw.v1.evt", job.space, dialect, topic}, "."))
	fact.Data, _ = json.Marshal(body)
	fact.Header.Set("Nats-Msg-Id", nats.NewInbox()[len(nats.InboxPrefix):])
	fact.Header.Set("Gw-Time", now())
	carry(job.msg, fact)
	stored, err := job.client.RequestMsgWithContext(job, fact)
	if err == nil && strings.Contains(string(stored.Data), `"error"`) {
		err = errors.New(string(stored.Data))
	}
	return err
}

// What this worker does. The rest is the same for every worker.
var actions = map[string]func(Job) (any, error){
	"greet": func(job Job) (any, error) {
		var params struct{ Name string }
		if err := job.Params(&params); err != nil {
			return nil, err
		}
		if params.Name == "" {
			return nil, Refused{400, `'name' is missing: {"name": "Ada"}`}
		}
		return map[string]string{"greeting": "Hello, " + params.Name + "!"}, nil
	},
	"count": func(job Job) (any, error) {
		params := struct{ To int }{3}
		if err := job.Params(&params); err != nil {
			return nil, err
		}
		for number := 1; number <= params.To; number++ {
			job.Progress(map[string]int{"number": number})
			select {
			case <-job.Done():
				return nil, Refused{499, "the command was cancelled"}
			case <-time.After(200 * time.Millisecond):
			}
		}
		if err := job.Event("voice", "counted", map[string]int{"to": params.To}); err != nil {
			return nil, err
		}
		return map[string]int{"counted": params.To}, nil
	},
}

var (
	running sync.Map // what cancels a command, by its id
	pending sync.WaitGroup
)

// handle gives a command its one final answer.
func handle(client *nats.Conn, msg *nats.Msg, action string, count func(time.Time, error)) {
	defer pending.Done()
	began := time.Now()
	if late(msg) {
		return
	}
	working, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if id := msg.Header.Get("Nats-Msg-Id"); id != "" {
		running.Store(id, cancel)
		defer running.Delete(id)
	}
	job := Job{working, client, msg, strings.Split(msg.Subject, ".")[3]}
	go alive(job)
	result, err := actions[action](job)
	answer := reply(msg, result)
	var refused Refused
	if err != nil {
		if !errors.As(err, &refused) {
			refused = Refused{500, err.Error()}
		}
		answer.Data = nil
		answer.Header.Set("Nats-Service-Error", strings.Join(strings.Fields(refused.Text), " "))
		answer.Header.Set("Nats-Service-Error-Code", strconv.Itoa(refused.Code))
	}
	count(began, err)
	client.PublishMsg(answer)
}

// alive says every five seconds that the work goes on.
func alive(job Job) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-job.Done():
			return
		case <-tick.C:
			job.Progress(nil)
		}
	}
}

// late says whether nobody waits for a command any more.
func late(msg *nats.Msg) bool {
	sent, err := strconv.ParseInt(msg.Header.Get("Gw-Time"), 10, 64)
	wait, none := strconv.ParseInt(msg.Header.Get("Gw-Deadline"), 10, 64)
	return err == nil && none == nil && time.Since(time.Unix(0, sent)) > time.Duration(wait)*time.Millisecond
}

func reply(msg *nats.Msg, body any) *nats.Msg {
	answer := nats.NewMsg(msg.Reply)
	if body != nil {
		answer.Data, _ = json.Marshal(body)
	}
	answer.Header.Set("Gw-Time", now())
	carry(msg, answer)
	return answer
}

// carry passes the trace on; a worker that makes spans of its own puts theirs here.
func carry(from, to *nats.Msg) {
	if trace := from.Header.Get("traceparent"); trace != "" {
		to.Header.Set("traceparent", trace)
	}
}

func now() string { return strconv.FormatInt(time.Now().UnixNano(), 10) }

func main() {
	url := os.Getenv("NATS_URL")
	if url == "" {
		url = nats.DefaultURL
	}
	client, err := nats.Connect(url, nats.Name(service), nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	known := newMicro("Greets and counts: a worker to copy")
	names, taking := []string{"greet", "count"}, []*nats.Subscription{}
	for _, name := range names {
		name, subject := name, fmt.Sprintf("gw.v1.cmd.*.%s.%s", service, name)
		count := known.endpoint(name, subject)
		commands, err := client.QueueSubscribe(subject, service, func(msg *nats.Msg) {
			pending.Add(1)
			// a command that takes long keeps no other one waiting
			go handle(client, msg, name, count)
		})
		if err != nil {
			log.Fatal(err)
		}
		taking = append(taking, commands)
	}
	// nobody waits for a command any more: every instance hears it, the one that has it stops
	client.Subscribe(fmt.Sprintf("gw.v1.cmd.*.%s.cancel", service), func(msg *nats.Msg) {
		var named struct{ ID string }
		if json.Unmarshal(msg.Data, &named) == nil {
			if cancel, there := running.Load(named.ID); there {
				cancel.(context.CancelFunc)()
			}
		}
	})
	known.serve(client)
	if err := client.Flush(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s serves %s at %s; Ctrl-C ends it\n", service, strings.Join(names, ", "), url)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	// no new commands; what is under way is answered
	for _, commands := range taking {
		commands.Drain()
		for commands.IsValid() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	pending.Wait()
	client.Drain()
	for !client.IsClosed() {
		time.Sleep(10 * time.Millisecond)
	}
}
