// Ask an llmsite and print the answer while it comes: go run ask.go PROMPT [IDEMPOTENCY_KEY]
//
// LLMSITE_URL and LLMSITE_KEY say where, and in whose name. Go 1.18 or newer and nothing else.
// Ends with 0 when the answer is whole, 1 when it failed or the server stayed away, 2 when the
// server refused the request.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	silence  = 45 * time.Second // a connection is dead: the server says something every 15 s
	patience = 10 * time.Minute // of waiting without a piece of text; a model may take minutes to load
)

var url, key = strings.TrimRight(os.Getenv("LLMSITE_URL"), "/"), os.Getenv("LLMSITE_KEY")

// question is asked under a name, the idempotency key. cursor is the id of the last event of
// its answer that came whole: RESPONSE:CHARACTERS.
type question struct {
	prompt, name, cursor string
	show                 func(text string)
	tried                int
	waited               time.Duration
}

// told is what the data of an event says, and a refusal (problem details, RFC 9457).
type told struct {
	Text, Code, Detail string
	FinishReason       string `json:"finish_reason"`
}

// end is an error with which asking again does not help. status 0: the answer is whole.
type end struct {
	status int
	reason string
}

func (e end) Error() string { return e.reason }

// ask gives each piece of the answer to show once, and comes back until there is an end.
func (q *question) ask() (over end) {
	for {
		wait := time.Duration(1+q.tried*q.tried) * time.Second / 4
		if wait > 10*time.Second {
			wait = 10 * time.Second
		}
		err := q.connect(&wait)
		if errors.As(err, &over) {
			return over
		}
		q.tried++
		if q.waited += wait; q.waited > patience {
			return end{1, fmt.Sprintf("%v; the same with the key %s goes on later", err, q.name)}
		}
		fmt.Fprintf(os.Stderr, "[%v; again in %v]\n", err, wait)
		time.Sleep(wait)
	}
}

// connect reads one stream. It makes wait longer where the server says so.
func (q *question) connect(wait *time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alarm := time.AfterFunc(silence, cancel) // http.Client.Timeout would end long answers
	request, err := q.request(ctx)
	if err != nil {
		return end{2, err.Error()}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case 200:
		return q.read(bufio.NewReader(answer.Body), alarm)
	case 409, 429, 502, 503, 504: // the same request may succeed later
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		if told := time.Duration(seconds) * time.Second; told > *wait {
			*wait = told
		}
		return errors.New("status " + answer.Status)
	}
	problem := told{Detail: "no reason"} // of a proxy's page
	json.NewDecoder(answer.Body).Decode(&problem)
	return end{2, "refused with " + answer.Status + ": " + problem.Detail}
}

// request comes back behind the cursor. Without one it asks, again too: the name joins what was
// begun.
func (q *question) request(ctx context.Context) (*http.Request, error) {
	method, path := "POST", "/chat/new/message/"
	body, _ := json.Marshal(map[string]any{"prompt": q.prompt, "stream": true})
	if response, after, found := strings.Cut(q.cursor, ":"); found {
		method, path, body = "GET", "/api/responses/"+response+"/events?after="+after, nil
	}
	request, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
	if err == nil {
		request.Header.Set("Authorization", "Bearer "+key)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", q.name)
	}
	return request, err
}

// read takes the events that come whole: what is cut off is nothing.
func (q *question) read(lines *bufio.Reader, alarm *time.Timer) error {
	name, data, id := "message", "", q.cursor
	for {
		line, err := lines.ReadString('\n') // no Scanner: one line may hold the whole text
		if err != nil {
			return fmt.Errorf("the stream was cut: %w", err)
		}
		alarm.Reset(silence)
		line = strings.TrimRight(line, "\r\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "": // the end of an event
			if data != "" {
				if err := q.take(name, data); err != nil {
					return err
				}
				q.cursor = id
			}
			name, data = "message", ""
		case field == "event":
			name = value
		case field == "data":
			data += value + "\n"
		case field == "id":
			id = value
		}
	}
}

// take is told one event, and returns an error when it is the last.
func (q *question) take(name, data string) error {
	var event told
	err := json.Unmarshal([]byte(data), &event)
	switch name {
	case "message":
		if err == nil {
			q.show(event.Text)
			q.tried, q.waited = 0, 0
		}
		return err
	case "done":
		return end{0, event.FinishReason}
	case "error":
		if event.Code == "internal_error" { // of the stream; the response itself may be well
			return errors.New(event.Detail)
		}
		return end{1, event.Detail}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ask.go PROMPT [IDEMPOTENCY_KEY]")
		os.Exit(2)
	}
	if url == "" {
		url = "http://127.0.0.1:8000"
	}
	// A name of your own, kept with what you ask for, finds the answer after a crash of yours, too.
	name := fmt.Sprint(time.Now().UnixNano(), "-", os.Getpid())
	if len(os.Args) == 3 {
		name = os.Args[2]
	}
	q := question{prompt: os.Args[1], name: name, show: func(text string) { fmt.Print(text) }}
	over := q.ask()
	fmt.Println()
	if over.reason != "stop" { // `length`: max_tokens were not enough; or why there is no answer
		fmt.Fprintf(os.Stderr, "[%s]\n", over.reason)
	}
	os.Exit(over.status)
}
