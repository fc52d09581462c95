// The NATS services API by hand: what `nats micro ls`, the gateway's directory and the dashboards ask on $SRV.
// From 1.33 on nats.go has it as package micro, with endpoints and queue groups; this works with those before it too.
package main

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const version = "1.0.0"

type identity struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Version  string            `json:"version"`
	Metadata map[string]string `json:"metadata"`
}

type endpoint struct {
	Name       string `json:"name"`
	Subject    string `json:"subject"`
	QueueGroup string `json:"queue_group"`
}

type figures struct {
	endpoint
	Requests   int           `json:"num_requests"`
	Errors     int           `json:"num_errors"`
	LastError  string        `json:"last_error"`
	Processing time.Duration `json:"processing_time"`
	Average    time.Duration `json:"average_processing_time"`
}

type micro struct {
	sync.Mutex
	identity
	description string
	started     time.Time
	figures     []*figures
}

func newMicro(description string) *micro {
	id := nats.NewInbox()[len(nats.InboxPrefix):]
	named := identity{service, id, version, map[string]string{}}
	return &micro{identity: named, description: description, started: time.Now().UTC()}
}

// endpoint makes an action known and returns what counts it.
func (known *micro) endpoint(name, subject string) func(time.Time, error) {
	mine := &figures{endpoint: endpoint{name, subject, service}}
	known.figures = append(known.figures, mine)
	return func(began time.Time, err error) {
		known.Lock()
		defer known.Unlock()
		mine.Requests++
		mine.Processing += time.Since(began)
		mine.Average = mine.Processing / time.Duration(mine.Requests)
		if err != nil {
			mine.Errors++
			mine.LastError = err.Error()
		}
	}
}

// serve answers to everybody, to this service's name, and to this instance's.
func (known *micro) serve(client *nats.Conn) {
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		verb := verb
		for _, name := range [][]string{{verb}, {verb, service}, {verb, service, known.ID}} {
			client.Subscribe("$SRV."+strings.Join(name, "."), func(msg *nats.Msg) {
				said, _ := json.Marshal(known.says(verb))
				msg.Respond(said)
			})
		}
	}
}

func (known *micro) says(verb string) any {
	known.Lock()
	defer known.Unlock()
	kind := "io.nats.micro.v1." + strings.ToLower(verb) + "_response"
	switch verb {
	case "INFO":
		endpoints := []endpoint{}
		for _, one := range known.figures {
			endpoints = append(endpoints, one.endpoint)
		}
		return struct {
			Type string `json:"type"`
			identity
			Description string     `json:"description"`
			Endpoints   []endpoint `json:"endpoints"`
		}{kind, known.identity, known.description, endpoints}
	case "STATS":
		all := []figures{}
		for _, one := range known.figures {
			all = append(all, *one)
		}
		return struct {
			Type string `json:"type"`
			identity
			Started   time.Time `json:"started"`
			Endpoints []figures `json:"endpoints"`
		}{kind, known.identity, known.started, all}
	}
	return struct {
		Type string `json:"type"`
		identity
	}{kind, known.identity}
}
