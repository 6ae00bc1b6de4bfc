CREATE TABLE "usage_days" (
	"day" text NOT NULL,
	"organization" text NOT NULL,
	"collection_name" text NOT NULL,
	"received_bytes" bigint NOT NULL,
	"stored_bytes" bigint NOT NULL,
	"versions" bigint NOT NULL,
	CONSTRAINT "usage_days_day_organization_collection_name_pk" PRIMARY KEY("day","organization","collection_name")
);
--> statement-breakpoint
ALTER TABLE "organizations" ADD COLUMN "closed_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "organizations" ADD COLUMN "closed_by" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "organizations" ADD COLUMN "closed_reason" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "organizations" ADD COLUMN "purge" jsonb;