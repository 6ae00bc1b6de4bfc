CREATE TABLE "audit_events" (
	"id" uuid PRIMARY KEY NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"kind" text NOT NULL,
	"actor" text NOT NULL,
	"collection_name" text NOT NULL,
	"details" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "collections" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"last_number" bigint NOT NULL,
	"stored_bytes" bigint NOT NULL,
	"reserved_bytes" bigint NOT NULL,
	"trash_bytes" bigint NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "collections_name_unique" UNIQUE("name"),
	CONSTRAINT "collections_counters" CHECK ("collections"."stored_bytes" >= 0 and "collections"."reserved_bytes" >= 0 and "collections"."trash_bytes" >= 0)
);
--> statement-breakpoint
CREATE TABLE "installation" (
	"id" uuid PRIMARY KEY NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "organizations" (
	"name" text PRIMARY KEY NOT NULL,
	"stored_bytes" bigint NOT NULL,
	"reserved_bytes" bigint NOT NULL,
	"trash_bytes" bigint NOT NULL,
	CONSTRAINT "organizations_counters" CHECK ("organizations"."stored_bytes" >= 0 and "organizations"."reserved_bytes" >= 0 and "organizations"."trash_bytes" >= 0)
);
--> statement-breakpoint
CREATE TABLE "segments" (
	"upload_id" uuid NOT NULL,
	"index" integer NOT NULL,
	"size" bigint NOT NULL,
	"sha256" "bytea" NOT NULL,
	"state" text NOT NULL,
	"attempt" integer NOT NULL,
	"framing_in" "bytea" NOT NULL,
	"framing_out" "bytea",
	"stored_at" timestamp (3) with time zone,
	CONSTRAINT "segments_upload_id_index_pk" PRIMARY KEY("upload_id","index"),
	CONSTRAINT "segments_size" CHECK ("segments"."size" > 0)
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"id" text PRIMARY KEY NOT NULL,
	"user_name" text NOT NULL,
	"access_key" text NOT NULL,
	"scope" jsonb NOT NULL,
	"description" text NOT NULL,
	"address" text NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "signing_keys" (
	"id" text PRIMARY KEY NOT NULL,
	"jwk" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "uploads" (
	"id" uuid PRIMARY KEY NOT NULL,
	"collection_id" uuid NOT NULL,
	"collection_name" text NOT NULL,
	"organization" text NOT NULL,
	"storage" text NOT NULL,
	"key" text NOT NULL,
	"store_token" text,
	"state" text NOT NULL,
	"user_name" text NOT NULL,
	"access_key" text NOT NULL,
	"session_id" text NOT NULL,
	"request_id" text NOT NULL,
	"request_digest" text NOT NULL,
	"filename" text NOT NULL,
	"content_encoding" text NOT NULL,
	"labels" jsonb NOT NULL,
	"client_metadata" jsonb NOT NULL,
	"segment_size" bigint NOT NULL,
	"max_size" bigint NOT NULL,
	"reserved_bytes" bigint NOT NULL,
	"lapsed" boolean NOT NULL,
	"lease_expires_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"begun_at" timestamp (3) with time zone NOT NULL,
	"ended_at" timestamp (3) with time zone,
	"abort_reason" text NOT NULL,
	"version_number" bigint,
	"cleaned_at" timestamp (3) with time zone,
	CONSTRAINT "uploads_key_unique" UNIQUE("key"),
	CONSTRAINT "uploads_reserved" CHECK ("uploads"."reserved_bytes" >= 0)
);
--> statement-breakpoint
CREATE TABLE "versions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"collection_id" uuid NOT NULL,
	"collection_name" text NOT NULL,
	"organization" text NOT NULL,
	"storage" text NOT NULL,
	"key" text NOT NULL,
	"number" bigint NOT NULL,
	"filename" text NOT NULL,
	"size" bigint NOT NULL,
	"segment_size" bigint NOT NULL,
	"segment_count" integer NOT NULL,
	"composite_sha256" "bytea" NOT NULL,
	"segment_digests" "bytea" NOT NULL,
	"content_encoding" text NOT NULL,
	"encryption_format" text NOT NULL,
	"armored" boolean NOT NULL,
	"begun_at" timestamp (3) with time zone NOT NULL,
	"committed_at" timestamp (3) with time zone NOT NULL,
	"user_name" text NOT NULL,
	"access_key" text NOT NULL,
	"session_id" text NOT NULL,
	"labels" jsonb NOT NULL,
	"client_metadata" jsonb NOT NULL,
	"above_soft_limit" boolean NOT NULL,
	"state" text NOT NULL,
	"held" boolean NOT NULL,
	"hold_reason" text NOT NULL,
	"protected_until" timestamp (3) with time zone,
	"removed_at" timestamp (3) with time zone,
	"removed_by" text NOT NULL,
	"purge_after" timestamp (3) with time zone,
	"purged_at" timestamp (3) with time zone,
	CONSTRAINT "versions_key_unique" UNIQUE("key"),
	CONSTRAINT "versions_number" UNIQUE("collection_id","number")
);
--> statement-breakpoint
ALTER TABLE "segments" ADD CONSTRAINT "segments_upload_id_uploads_id_fk" FOREIGN KEY ("upload_id") REFERENCES "public"."uploads"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "uploads" ADD CONSTRAINT "uploads_collection_id_collections_id_fk" FOREIGN KEY ("collection_id") REFERENCES "public"."collections"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "versions" ADD CONSTRAINT "versions_collection_id_collections_id_fk" FOREIGN KEY ("collection_id") REFERENCES "public"."collections"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "audit_events_collection" ON "audit_events" USING btree ("collection_name","at");--> statement-breakpoint
CREATE INDEX "sessions_user" ON "sessions" USING btree ("user_name","created_at");--> statement-breakpoint
CREATE INDEX "uploads_collection" ON "uploads" USING btree ("collection_id","begun_at");--> statement-breakpoint
CREATE INDEX "uploads_unsettled" ON "uploads" USING btree ("collection_id") WHERE "uploads"."state" in ('open', 'committing');--> statement-breakpoint
CREATE INDEX "uploads_unclean" ON "uploads" USING btree ("state") WHERE "uploads"."cleaned_at" is null and "uploads"."state" in ('aborted', 'expired');--> statement-breakpoint
CREATE INDEX "uploads_request" ON "uploads" USING btree ("collection_id","user_name","request_id") WHERE "uploads"."request_id" <> '';--> statement-breakpoint
CREATE INDEX "versions_live" ON "versions" USING btree ("collection_id","number") WHERE "versions"."state" = 'live';--> statement-breakpoint
CREATE INDEX "versions_trash" ON "versions" USING btree ("purge_after") WHERE "versions"."state" = 'removed';--> statement-breakpoint
CREATE INDEX "versions_removed_by" ON "versions" USING btree ("removed_by") WHERE "versions"."removed_by" <> '';