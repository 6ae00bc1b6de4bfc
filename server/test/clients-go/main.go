// Command clients-go makes one client-streaming call with a stock Go client, and prints how it ended as one line of JSON.
//
//	clients-go CLIENT HOST:PORT METHOD FRAMES
//
// CLIENT is grpc-go, or connect, grpc or grpcweb of connect-go, each with the HTTP version after a slash: connect/1.1, connect/2. FRAMES is a file of messages
// as they are, each after its length (four bytes, big-endian). The token is in the
// environment, as TOKEN, and how many calls are made one after the other over one connection, as CALLS; the last one is printed. Messages are bytes here, so that this program needs no generated code and no change when the contract changes.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// outcome is how a call ended.
type outcome struct {
	// Code is empty when the call was answered, else the name of the status in lower case.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Details are the types of the details of a status.
	Details []string `json:"details"`
	// Response is the message of the answer.
	Response []byte `json:"response"`
	// RequestID is what the server sent in headers or trailers.
	RequestID string `json:"requestId"`
	// Sent counts messages that were given to the client before it said that no more are wanted.
	Sent int `json:"sent"`
}

// raw passes messages as they are, but for the statuses of gRPC, which connect-go reads by the same codec.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	if known, ok := message.(proto.Message); ok {
		return proto.Unmarshal(data, known)
	}
	*message.(*[]byte) = append([]byte{}, data...)
	return nil
}

const requestIDHeader = "X-Request-Id"

func main() {
	if len(os.Args) != 5 {
		fail(errors.New("usage: clients-go CLIENT HOST:PORT METHOD FRAMES"))
	}
	client, address, method := os.Args[1], os.Args[2], os.Args[3]
	frames, err := readFrames(os.Args[4])
	if err != nil {
		fail(err)
	}
	var call func(frames [][]byte) (outcome, error)
	if client == "grpc-go" {
		call, err = grpcGo(address, method)
	} else {
		call, err = connectGo(client, address, method)
	}
	if err != nil {
		fail(err)
	}
	calls, err := strconv.Atoi(os.Getenv("CALLS"))
	if err != nil {
		fail(err)
	}
	var ended outcome
	for range calls {
		if ended, err = call(frames); err != nil {
			fail(err)
		}
	}
	json.NewEncoder(os.Stdout).Encode(ended)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func readFrames(file string) ([][]byte, error) {
	data, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	in := bufio.NewReader(data)
	var frames [][]byte
	for {
		var size uint32
		if err := binary.Read(in, binary.BigEndian, &size); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(in, frame); err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	return frames, nil
}

// sendAll sends until the client says that the call is over already; the reason comes with the answer.
func sendAll(frames [][]byte, send func(*[]byte) error) (int, error) {
	for sent := range frames {
		if err := send(&frames[sent]); errors.Is(err, io.EOF) {
			return sent, nil
		} else if err != nil {
			return sent, err
		}
	}
	return len(frames), nil
}

func grpcGo(address, method string) (func([][]byte) (outcome, error), error) {
	channel, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return func(frames [][]byte) (outcome, error) { return callGrpcGo(channel, method, frames) }, nil
}

func callGrpcGo(channel *grpc.ClientConn, method string, frames [][]byte) (outcome, error) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("TOKEN"))
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/"+method, grpc.ForceCodec(raw{}))
	if err != nil {
		return outcome{}, err
	}
	sent, err := sendAll(frames, func(frame *[]byte) error { return stream.SendMsg(frame) })
	if err != nil {
		return outcome{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return outcome{}, err
	}
	var response []byte
	err = stream.RecvMsg(&response)
	ended := outcome{Response: response, Sent: sent, RequestID: first(stream.Trailer(), requestIDHeader)}
	if header, failed := stream.Header(); failed == nil && ended.RequestID == "" {
		ended.RequestID = first(header, requestIDHeader)
	}
	if err != nil {
		answer := status.Convert(err)
		ended.Code = strings.ToLower(answer.Code().String())
		ended.Message = answer.Message()
		for _, detail := range answer.Proto().Details {
			ended.Details = append(ended.Details, detail.TypeUrl)
		}
	}
	return ended, nil
}

func first(values metadata.MD, name string) string {
	if all := values.Get(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

func connectGo(client, address, method string) (func([][]byte) (outcome, error), error) {
	protocol, version, _ := strings.Cut(client, "/")
	transport := &http.Transport{Protocols: new(http.Protocols)}
	switch version {
	case "1.1":
		transport.Protocols.SetHTTP1(true)
	case "2":
		transport.Protocols.SetUnencryptedHTTP2(true)
	default:
		return nil, fmt.Errorf("expected HTTP version 1.1 or 2, got %q", version)
	}
	options := []connect.ClientOption{connect.WithCodec(raw{})}
	switch protocol {
	case "connect":
	case "grpc":
		options = append(options, connect.WithGRPC())
	case "grpcweb":
		options = append(options, connect.WithGRPCWeb())
	default:
		return nil, fmt.Errorf("expected connect, grpc or grpcweb, got %q", protocol)
	}
	caller := connect.NewClient[[]byte, []byte](&http.Client{Transport: transport}, "http://"+address+"/"+method, options...)
	return func(frames [][]byte) (outcome, error) { return callConnectGo(caller, frames) }, nil
}

func callConnectGo(caller *connect.Client[[]byte, []byte], frames [][]byte) (outcome, error) {
	stream := caller.CallClientStream(context.Background())
	stream.RequestHeader().Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	sent, err := sendAll(frames, stream.Send)
	if err != nil {
		return outcome{}, err
	}
	response, err := stream.CloseAndReceive()
	ended := outcome{Sent: sent}
	var answer *connect.Error
	switch {
	case errors.As(err, &answer):
		ended.Code = strings.ReplaceAll(answer.Code().String(), "_", "")
		ended.Message = answer.Message()
		ended.RequestID = answer.Meta().Get(requestIDHeader)
		for _, detail := range answer.Details() {
			ended.Details = append(ended.Details, "type.googleapis.com/"+detail.Type())
		}
	case err != nil:
		return outcome{}, err
	default:
		ended.Response = *response.Msg
		ended.RequestID = response.Header().Get(requestIDHeader)
	}
	return ended, nil
}
